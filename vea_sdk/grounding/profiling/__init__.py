"""Which layers of a model look at the evidence, and how sure that is."""

from vea_sdk.grounding.profiling.choice import best_layers, n_best
from vea_sdk.grounding.profiling.measurement import Measured, Measurement
from vea_sdk.grounding.profiling.measuring import measure
from vea_sdk.grounding.profiling.resampling import Confidence, Stability, Transfer, confidence, stability, transfer
from vea_sdk.grounding.profiling.run import profile, profile_of

__all__ = [
    "Confidence",
    "Measured",
    "Measurement",
    "Stability",
    "Transfer",
    "best_layers",
    "confidence",
    "measure",
    "n_best",
    "profile",
    "profile_of",
    "stability",
    "transfer",
]
