"""Made-up records of a monitor, for tests of what consumes them."""

from __future__ import annotations

from typing import Any

import numpy as np

from vea_sdk.monitor.alerts import Alert
from vea_sdk.monitor.record import Figures, LayerFigures, Patch, Record


def record(number: int = 0, mass: float | None = 0.4, **fields: Any) -> Record:
    """A plausible record; ``fields`` replace its own, and image mass, entropy and agreement may be given directly."""
    entropy, agreement = fields.pop("entropy", 3.0), fields.pop("agreement", 0.8)
    mean = Figures(image_mass=mass, entropy=entropy, peak=0.2, rapt_image=0.6, rapt_text=1.4)
    layers = tuple(
        LayerFigures(image_mass=mass, entropy=entropy, peak=0.2, rapt_image=0.6, rapt_text=1.4, layer=layer)
        for layer in (2, 3)
    )
    known: dict[str, Any] = {
        "request": f"r{number}",
        "time": 1_000_000.0 + number,
        "model": "tiny",
        "adapter": "LlavaAdapter",
        "layers": (2, 3),
        "images": 1,
        "image_tokens": 64,
        "prompt_tokens": 80,
        "generated_tokens": 8,
        "mean": mean,
        "per_layer": layers,
        "agreement": agreement,
        "top_patches": (Patch(token=5, score=0.1, image=0, box=(0.0, 0.0, 6.0, 6.0)),),
        "spikes": 1,
        "border_share": 0.3,
        "trace": (0.4, 0.3, 0.2),
        "certainty": 0.7,
        "certainty_per_token": 0.96,
        "timings": {"prefill": 0.05, "total": 0.25, "monitor": 0.0008},
    }
    return Record(**(known | fields))


def stationary(n: int, seed: int, start: int = 0) -> list[Record]:
    """Requests of one unchanging, skewed distribution, one a second."""
    rng = np.random.default_rng(seed)
    mass, agreement = rng.beta(2, 5, n), rng.beta(8, 2, n)
    entropy = np.log(64) * rng.beta(6, 3, n)
    certainty = rng.beta(20, 2, n)
    drawn = zip(*(one.tolist() for one in (mass, entropy, agreement, certainty)), strict=True)
    return [
        record(start + i, m, entropy=e, agreement=a, certainty=c**8, certainty_per_token=c)
        for i, (m, e, a, c) in enumerate(drawn)
    ]


ALERT = Alert("drift", "firing", "tiny", "peak", 0.5, 0.25, "r7", 7.0)
RESOLVED = Alert("drift", "resolved", "tiny", "peak", 0.1, 0.25, "r9", 9.0)
DROPPED = record(
    3,
    mass=None,
    entropy=None,
    dropped=True,
    unread="full",
    agreement=None,
    border_share=None,
    trace=None,
    timings={},
    certainty=None,
    certainty_per_token=None,
)
