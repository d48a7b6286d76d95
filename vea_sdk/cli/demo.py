"""``vea demo``: the whole corridor on the embedded model, offline."""

from __future__ import annotations

import time
from pathlib import Path

from vea_sdk import tiny
from vea_sdk.cli.output import JsonFlag, OutFolder, progress, report, save_picture, seconds
from vea_sdk.grounding import metrics
from vea_sdk.loading import load


def demo(out: OutFolder = Path("vea-output"), as_json: JsonFlag = False) -> None:
    """Ask the embedded model about a picture, show where it looked, and ask again."""
    started = time.perf_counter()
    with progress("loading the embedded model"):
        vlm = load(tiny.checkpoint(), device="cpu")
        sample = tiny.demo_sample()
    loaded = time.perf_counter()
    with progress("asking, looking, asking again"):
        answer = vlm.ask(sample.image, sample.question, max_new_tokens=24)
    evidence, highlighted = answer.evidence, answer.highlighted
    assert not isinstance(highlighted, list | None)
    labels = metrics.patch_labels(evidence.layout, sample.boxes)
    report(
        {
            "question": sample.question,
            "expected": sample.answers[0],
            "baseline": answer.baseline,
            "answer": answer.text,
            "layers": list(evidence.layers),
            "auroc": metrics.auroc(evidence.scores, labels),
            "overlay": save_picture(evidence.overlay(), out, "demo-overlay.png"),
            "highlighted": save_picture(highlighted, out, "demo-highlighted.png"),
            "timings": seconds({"load": loaded - started} | answer.timings),
        },
        as_json,
    )
