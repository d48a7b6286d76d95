"""Does what people see lie where the evidence is? Overlay, look, point and boxes of the embedded model, with defaults.

    python benchmarks/looks.py

Four sets of 60 held-out pictures each, of seeds that nothing else uses. "Within half a patch" means inside a box of the
evidence that is wider by half a patch on every side.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import dataclass, fields

import numpy as np
import reports
import torch

import vea_sdk as vea
from vea_sdk import metrics, tiny
from vea_sdk.benchmark import Row, row

SETS = (2000, 2100, 2200, 2300)
COUNT = 60
LIMITS = {"overlay": 52, "look": 50, "point": 45}
WHAT = {
    "overlay": "strongest place of the overlay within half a patch of the evidence",
    "look": "peak of the look within half a patch of the evidence",
    "point": "point inside the evidence",
    "patch": "best patch touches the evidence",
}


@dataclass(frozen=True)
class Seen:
    """What one picture's evidence shows: 1 where it lies at the truth. ``iou``: of the first box."""

    overlay: float
    look: float
    point: float
    patch: float
    iou: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reports.add_arguments(parser)
    options = parser.parse_args()
    vlm = vea.load(tiny.checkpoint(), device="cpu")
    reports.finish([one for first in SETS for one in rows(vlm, first)], "looks", options)


def rows(vlm: vea.VLM, first: int) -> list[Row]:
    seen = list(looked(vlm, first, COUNT))
    shape = {"seeds": f"{first} to {first + COUNT - 1}", "pictures": COUNT}
    found = [
        row(
            WHAT[name],
            float(sum(getattr(one, name) for one in seen)),
            "pictures",
            limit=LIMITS.get(name),
            better="higher",
            shape=shape,
        )
        for name in (one.name for one in fields(Seen))
        if name != "iou"
    ]
    iou = float(np.mean([one.iou for one in seen]))
    return [*found, row("IoU of the first box with the evidence, mean", iou, "", better="higher", shape=shape)]


def looked(vlm: vea.VLM, first: int, count: int) -> Iterable[Seen]:
    """One Seen for each of the pictures of the seeds from ``first`` on."""
    for sample in tiny.held_out(count, first):
        evidence = vlm.attend(sample.image, sample.question)
        look, patch = evidence.look(), sample.image.width / evidence.grid[1]
        y, x = divmod(int(look.argmax()), look.shape[1])
        point, boxes = evidence.point(), evidence.boxes()
        (best,) = evidence.top_patches(1)
        yield Seen(
            overlay=near(strongest(evidence, round(patch)), sample.boxes, patch / 2),
            look=near((x + 0.5, y + 0.5), sample.boxes, patch / 2),
            point=metrics.pointing_game(point, sample.boxes),
            patch=float(any(metrics.iou(best, box) > 0 for box in sample.boxes)),
            iou=max((metrics.iou(boxes[0].box, box) for box in sample.boxes), default=0.0) if boxes else 0.0,
        )


def strongest(evidence: vea.Evidence, side: int) -> tuple[float, float]:
    """(x, y): the middle of the window of a patch's size in which the drawn overlay differs most from the picture."""
    drawn, picture = (np.asarray(image, np.float32) for image in (evidence.overlay(), evidence.image))
    change = torch.from_numpy(np.abs(drawn - picture).sum(-1))[None, None]
    sums = torch.nn.functional.avg_pool2d(change, side, stride=1)[0, 0]
    y, x = divmod(int(sums.argmax()), sums.shape[1])
    return x + side / 2, y + side / 2


def near(point: tuple[float, float], boxes: Iterable[tuple[float, float, float, float]], margin: float) -> float:
    wider = [(x0 - margin, y0 - margin, x1 + margin, y1 + margin) for x0, y0, x1, y1 in boxes]
    return metrics.pointing_game(point, wider)


if __name__ == "__main__":
    main()
