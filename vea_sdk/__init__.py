"""Where did the model look? Image attention of vision-language models, and evidence shown back to them."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from vea_sdk import adapters, ops
from vea_sdk._native import build_info
from vea_sdk._version import __version__
from vea_sdk.errors import VeaError
from vea_sdk.profiles import Profile

if TYPE_CHECKING:
    from vea_sdk import evidence, grounding, tiny, views
    from vea_sdk.capture import CapturePackage
    from vea_sdk.capture.words import Word
    from vea_sdk.evaluation import evaluate
    from vea_sdk.evaluation.analysis import analyze
    from vea_sdk.evidence import Evidence, Region, Video, VideoEvidence, load_video
    from vea_sdk.grounding import metrics
    from vea_sdk.grounding.probes import probes
    from vea_sdk.grounding.profiling import profile
    from vea_sdk.grounding.samples import Sample
    from vea_sdk.loading import load
    from vea_sdk.monitor import MonitorPackage
    from vea_sdk.pipeline import VLM, Answer, wrap

    capture: CapturePackage
    monitor: MonitorPackage
else:
    from vea_sdk import capture, monitor  # packages that are called

__all__ = [
    "VLM",
    "Answer",
    "Evidence",
    "Profile",
    "Region",
    "Sample",
    "VeaError",
    "Video",
    "VideoEvidence",
    "Word",
    "__version__",
    "adapters",
    "analyze",
    "build_info",
    "capture",
    "evaluate",
    "evidence",
    "grounding",
    "load",
    "load_video",
    "metrics",
    "monitor",
    "ops",
    "probes",
    "profile",
    "tiny",
    "views",
    "wrap",
]

# Names whose modules need Pillow: imported at first use, so that whoever only captures does not wait for it.
_LATER = {
    "VLM": "vea_sdk.pipeline",
    "Answer": "vea_sdk.pipeline",
    "Evidence": "vea_sdk.evidence",
    "Region": "vea_sdk.evidence",
    "Sample": "vea_sdk.grounding.samples",
    "Video": "vea_sdk.evidence",
    "VideoEvidence": "vea_sdk.evidence",
    "Word": "vea_sdk.capture.words",
    "analyze": "vea_sdk.evaluation.analysis",
    "evaluate": "vea_sdk.evaluation",
    "evidence": "vea_sdk.evidence",
    "grounding": "vea_sdk.grounding",
    "load": "vea_sdk.loading",
    "load_video": "vea_sdk.evidence",
    "metrics": "vea_sdk.grounding.metrics",
    "probes": "vea_sdk.grounding.probes.compose",
    "profile": "vea_sdk.grounding.profiling",
    "tiny": "vea_sdk.tiny",
    "views": "vea_sdk.views",
    "wrap": "vea_sdk.pipeline",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(_LATER[name])
    return module if module.__name__.endswith(f".{name}") else getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
