"""How well attention points at the evidence: samples, metrics, probes, profiling, sinks."""

from vea_sdk.grounding import metrics, probes, profiling, samples, sinks

__all__ = ["metrics", "probes", "profiling", "samples", "sinks"]
