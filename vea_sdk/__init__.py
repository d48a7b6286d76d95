"""Where did the model look? Image attention of vision-language models, and evidence shown back to them."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from vea_sdk import adapters, ops
from vea_sdk._native import build_info
from vea_sdk.capture.session import capture
from vea_sdk.errors import VeaError
from vea_sdk.monitor.handle import monitor
from vea_sdk.profiles import Profile

if TYPE_CHECKING:
    from vea_sdk import evidence
    from vea_sdk.grounding import metrics
    from vea_sdk.grounding.samples import Sample
    from vea_sdk.loading import load
    from vea_sdk.pipeline import VLM, Answer, wrap

__version__ = "0.1.0"

__all__ = [
    "VLM",
    "Answer",
    "Profile",
    "Sample",
    "VeaError",
    "__version__",
    "adapters",
    "build_info",
    "capture",
    "evidence",
    "load",
    "metrics",
    "monitor",
    "ops",
    "wrap",
]

# Names whose modules need Pillow: imported at first use, so that whoever only captures does not wait for it.
_LATER = {
    "VLM": "vea_sdk.pipeline",
    "Answer": "vea_sdk.pipeline",
    "Sample": "vea_sdk.grounding.samples",
    "evidence": "vea_sdk.evidence",
    "load": "vea_sdk.loading",
    "metrics": "vea_sdk.grounding.metrics",
    "wrap": "vea_sdk.pipeline",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(_LATER[name])
    return module if module.__name__.endswith(f".{name}") else getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
