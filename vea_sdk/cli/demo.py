"""``vea demo``: the whole corridor on the embedded model, offline."""

from __future__ import annotations

import time
from pathlib import Path

from PIL import Image

from vea_sdk import tiny
from vea_sdk.cli.output import ForceFlag, JsonFlag, OutFolder, Outputs, progress, report, seconds
from vea_sdk.grounding import metrics
from vea_sdk.loading import load


def demo(out: OutFolder = Path("vea-output"), force: ForceFlag = False, as_json: JsonFlag = False) -> None:
    """Ask the embedded model about a picture, show where it looked, and ask again."""
    outputs = Outputs(out, "demo", force)
    started = time.perf_counter()
    with progress("loading the embedded model"):
        vlm = load(tiny.checkpoint(), device="cpu")
        sample = tiny.demo_sample()
    loaded = time.perf_counter()
    with progress("asking, looking, asking again"):
        answer = vlm.ask(sample.image, sample.question, max_new_tokens=24)
    evidence, highlighted = answer.evidence, answer.highlighted
    assert isinstance(highlighted, Image.Image)
    labels = metrics.patch_labels(evidence.layout, sample.boxes)
    report(
        {
            "question": sample.question,
            "expected": sample.answers[0],
            "baseline": answer.baseline,
            "answer": answer.text,
            "certainty": answer.certainty,
            "layers": list(evidence.layers),
            "auroc": metrics.auroc(evidence.scores, labels),
            "overlay": outputs.save(evidence.overlay(), "overlay"),
            "highlighted": outputs.save(highlighted, "highlighted"),
            "together": outputs.save(
                _side_by_side(sample.image, evidence.overlay(boxes=True), highlighted), "together"
            ),
            "timings": seconds({"load": loaded - started} | answer.timings),
        },
        as_json,
    )


def _side_by_side(*pictures: Image.Image, height: int = 320, gap: int = 12) -> Image.Image:
    """The pictures in one row, on white."""
    shown = [one.resize((round(one.width * height / one.height), height), Image.Resampling.LANCZOS) for one in pictures]
    row = Image.new("RGB", (sum(one.width for one in shown) + gap * (len(shown) - 1), height), "white")
    left = 0
    for one in shown:
        row.paste(one, (left, 0))
        left += one.width + gap
    return row
