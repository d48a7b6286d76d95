"""Where did the model look? Image attention of vision-language models, and evidence shown back to them."""

from vea_sdk import adapters, evidence, ops
from vea_sdk._native import build_info
from vea_sdk.capture.session import capture
from vea_sdk.errors import VeaError
from vea_sdk.grounding import metrics
from vea_sdk.grounding.samples import Sample
from vea_sdk.loading import load
from vea_sdk.pipeline import VLM, Answer, wrap
from vea_sdk.profiles import Profile

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
    "ops",
    "wrap",
]
