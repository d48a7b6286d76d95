"""``vea demo``: the whole corridor on the embedded model, offline."""

from __future__ import annotations

import time
from collections import Counter
from functools import partial
from pathlib import Path

from PIL import Image

from vea_sdk import tiny
from vea_sdk.cli.ask import answered, drawn_windows
from vea_sdk.cli.output import (
    ForceFlag,
    JsonFlag,
    OutFolder,
    Outputs,
    progress,
    progress_bar,
    report,
    rounded,
    seconds,
)
from vea_sdk.grounding import metrics
from vea_sdk.loading import load
from vea_sdk.pipeline import VLM

FIRST, PAGES = 3000, 8
"""Seeds of the held-out pages that are counted: no setting was chosen on them."""

MAX_NEW_TOKENS = 24


def demo(out: OutFolder = Path("vea-output"), force: ForceFlag = False, as_json: JsonFlag = False) -> None:
    """Ask the embedded model about a small page in a large picture, show where it looked, and let it look closer."""
    outputs = Outputs(out, "demo", force)
    started = time.perf_counter()
    with progress("loading the embedded model"):
        vlm = load(tiny.checkpoint(), device="cpu")
        sample = tiny.demo_scene()
    loaded = time.perf_counter()
    with progress("asking, looking closer, asking again"):
        answer = vlm.ask(sample.image, sample.question, "closer", max_new_tokens=MAX_NEW_TOKENS)
    evidence = answer.evidence
    windows = drawn_windows(answer, sample.image)
    taken = sample.image if answer.window is None else sample.image.crop(answer.window)
    labels = metrics.patch_labels(evidence.layout, sample.boxes)
    answering = time.perf_counter()
    counts = how_often(vlm)
    timings = {"load": loaded - started} | answer.timings | {"count": time.perf_counter() - answering}
    report(
        {
            "question": sample.question,
            "expected": sample.answers[0],
            "baseline": answer.baseline,
            "answer": answer.text,
            "certainty": answer.certainty,
            "reason": answer.reason,
            "window": None if answer.window is None else rounded(answer.window),
            "candidates": answered(answer.candidates),
            "cost": {"looks": answer.cost.looks, "answers": answer.cost.answers},
            "layers": list(evidence.layers),
            "auroc": metrics.auroc(evidence.scores, labels),
            **counts,
            "overlay": outputs.save(evidence.overlay(), "overlay"),
            "highlighted": outputs.save(evidence.highlight(), "highlighted"),
            "windows": outputs.save(windows, "windows"),
            "together": outputs.save(_side_by_side(sample.image, evidence.overlay(), windows, taken), "together"),
            "timings": seconds(timings),
        },
        as_json,
    )


def how_often(vlm: VLM) -> dict[str, str]:
    """Right answers of held-out pages before and after: small in a larger picture, then filling it; and the control."""
    small, whole = Counter[str](), Counter[str]()
    with progress_bar("counting", 2 * PAGES) as advance:
        for seed in range(FIRST, FIRST + PAGES):
            for scale, counted in ((0.8, small), (1.0, whole)):
                page = tiny.scene(seed, scale)
                ask = partial(vlm.ask, page.image, page.question, "closer", max_new_tokens=MAX_NEW_TOKENS, words=False)
                found = ask()
                said = {"first": found.baseline, "closer": found.text}
                if scale < 1:
                    said["random"] = ask(rank_by="random").text
                counted.update(way for way, text in said.items() if metrics.exact_match(text, page.answers))
                advance(1)
    of = f"of {PAGES} pages"
    return {
        "gain": f"{of} that are small in their picture: {small['first']} right at first, {small['closer']} closer",
        "control": f"with 3 random windows in place of those the attention ranks highest: {small['random']}",
        "harm": f"{of} that fill their picture: {whole['first']} right at first, {whole['closer']} closer",
    }


def _side_by_side(*pictures: Image.Image, height: int = 320, gap: int = 12) -> Image.Image:
    """The pictures in one row, on white."""
    shown = [one.resize((round(one.width * height / one.height), height), Image.Resampling.LANCZOS) for one in pictures]
    row = Image.new("RGB", (sum(one.width for one in shown) + gap * (len(shown) - 1), height), "white")
    left = 0
    for one in shown:
        row.paste(one, (left, 0))
        left += one.width + gap
    return row
