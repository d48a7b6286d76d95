"""The statistics of a record that are followed over time: one table for every sink, the watch and the command line."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from vea_sdk.monitor.record import Figures, Record

_SHARES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
_FOLDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 0.8, 1.0, 1.25, 2.0, 5.0, 10.0, 20.0, 50.0)
_NATS = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 5.5, 6.0, 6.5, 7.0, 7.5, 8.0, 9.0, 10.0)
_SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
_FINE = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)  # seconds


@dataclass(frozen=True)
class Statistic:
    """A number per request, and the upper bounds of the histogram it is counted in."""

    name: str
    help: str
    buckets: tuple[float, ...]
    of: Callable[[Record], float | None]
    unit: str = ""  # empty for a share or a ratio

    @property
    def title(self) -> str:
        """Name and unit, for people."""
        return f"{self.name} {self.unit}".replace("_", " ").rstrip()

    def read(self, record: Record) -> float | None:
        """The value; None where it is undefined: no image, one layer only, NaN, a dropped record."""
        value = self.of(record)
        return None if value is None or not math.isfinite(value) else float(value)


def _entropy_ratio(record: Record) -> float | None:
    entropy, m = record.mean.entropy, record.image_tokens
    return None if entropy is None or m < 2 else entropy / math.log(m)


STATISTICS = (
    Statistic("image_mass", "Attention of the last prompt token on the image.", _SHARES, lambda r: r.mean.image_mass),
    Statistic("rapt_image", "Mean attention on the image / on the prompt.", _FOLDS, lambda r: r.mean.rapt_image),
    Statistic("rapt_text", "Mean attention on the text / on the prompt.", _FOLDS, lambda r: r.mean.rapt_text),
    Statistic("entropy", "Entropy of the attention within the image.", _NATS, lambda r: r.mean.entropy, "nats"),
    Statistic("entropy_ratio", "Entropy / log of the number of image tokens; 1 is even.", _SHARES, _entropy_ratio),
    Statistic("peak", "Largest share of one image token.", _SHARES, lambda r: r.mean.peak),
    Statistic("agreement", "Mean cosine between the layers' image rows.", _SHARES, lambda r: r.agreement),
    Statistic("border_share", "Share of image attention on border patches.", _SHARES, lambda r: r.border_share),
    Statistic(
        "generated_image_mass",
        "Attention on the image, mean over the generated tokens.",
        _SHARES,
        lambda r: r.trace[1] if r.trace else None,
    ),
    Statistic("certainty", "Product of the probabilities of the answer's tokens.", _SHARES, lambda r: r.certainty),
    Statistic(
        "certainty_per_token",
        "Geometric mean of the probabilities of the answer's tokens.",
        _SHARES,
        lambda r: r.certainty_per_token,
    ),
    Statistic("request", "From the prompt to the end.", _SECONDS, lambda r: r.timings.get("total"), "seconds"),
    Statistic("prefill", "From the prompt to its last token.", _SECONDS, lambda r: r.timings.get("prefill"), "seconds"),
    Statistic("monitor", "Of the request, spent watching.", _FINE, lambda r: r.timings.get("monitor"), "seconds"),
)


@dataclass(frozen=True)
class Count:
    """A yes or no per request, to be added up."""

    name: str
    help: str
    of: Callable[[Record], bool]


COUNTS = (
    Count("requests", "Sampled requests.", lambda r: True),
    Count("dropped", "Sampled requests without figures: the ring was full.", lambda r: r.dropped),
    Count("unread", "Sampled requests whose attention could not be read.", lambda r: r.unread is not None),
    Count("failed", "Sampled requests that raised.", lambda r: r.finished == "failed"),
    Count("nan", "Sampled requests with NaN among their image scores.", lambda r: r.nan > 0),
)


def outcome(record: Record) -> str:
    """In a word or two, for people: what became of the request or, if it ended well, of its figures."""
    if record.dropped or record.finished != "ended":
        return "dropped" if record.dropped else record.finished
    if record.unread is not None:
        return "unread"
    return f"NaN {record.nan}" if record.nan else "ended"


PER_LAYER: tuple[tuple[Statistic, Callable[[Figures], float | None]], ...] = tuple(
    (one, figure)
    for name, figure in (
        ("image_mass", lambda f: f.image_mass),
        ("rapt_image", lambda f: f.rapt_image),
        ("entropy", lambda f: f.entropy),
        ("peak", lambda f: f.peak),
    )
    for one in STATISTICS
    if one.name == name
)
"""Those that every layer has too, and how to read them from a layer's figures."""
