"""Words of answers: do they point at what they name, and what do they cost?

    python benchmarks/words.py

Places: over held-out questions that the embedded model answers rightly, with defaults, whether the best patch of each
word of the answer, and of each of its tokens by position, touches the box of the value. Cost (P10): ``ask`` with words
against without, in turns, on the model of benchmarks/overhead.py with 4 pictures and a prompt of 2,048 tokens.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from functools import partial
from typing import Any

import numpy as np
import reports
import torch
from PIL import Image
from transformers import BatchFeature, CLIPImageProcessorPil

import vea_sdk as vea
from vea_sdk import metrics, tiny
from vea_sdk.benchmark import Row, Spread, alternate, ratios, row
from vea_sdk.benchmark.models import PATCH, SIDE, Decoder, prompt, random_llava
from vea_sdk.capture.evidence import evidence_of_one

RIGHT, FIRST = 200, 2400
TOKENS, NEW_TOKENS, LAYERS, LIMIT = 2048, 33, (4, 5, 6), 1.02


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40, help="of ask() with words and without, at most")
    parser.add_argument("--seconds", type=float, default=150, help="for these rounds")
    reports.add_arguments(parser)
    options = parser.parse_args()
    reports.finish([*places(), *cost(options.rounds, options.seconds)], "words", options)


def places() -> list[Row]:
    vlm = vea.load(tiny.checkpoint(), device="cpu")
    words: list[float] = []
    tokens: dict[int, list[float]] = defaultdict(list)
    right = asked = 0
    for sample in tiny.held_out(tiny.HELD_OUT - FIRST, FIRST):
        if right == RIGHT:
            break
        asked += 1
        answer = vlm.ask(sample.image, sample.question, mode="none", max_new_tokens=24)
        if not metrics.exact_match(answer.text, sample.answers):
            continue
        right += 1
        for word in answer.words:
            words.append(touches(word.evidence, sample.boxes))
            for token in word.tokens:
                tokens[token].append(touches(of_token(answer, token), sample.boxes))
    shape = {"seeds": f"from {FIRST}", "asked": asked, "right": right}
    what = "best patch of a value's {} touches the value"
    every = [hit for hits in tokens.values() for hit in hits]
    rows = [
        row(
            what.format("word"), float(np.mean(words)), "", limit=0.9, better="higher", shape=shape | {"n": len(words)}
        ),
        row(what.format("token"), float(np.mean(every)), "", better="higher", shape=shape | {"n": len(every)}),
    ]
    for position, hits in sorted(tokens.items()):
        if len(hits) >= 20:
            counted = shape | {"n": len(hits)}
            text = what.format(f"token {position}")
            rows.append(row(text, float(np.mean(hits)), "", better="higher", shape=counted))
    return rows


def of_token(answer: vea.Answer[vea.Evidence], token: int) -> vea.Evidence:
    """The evidence of one token by itself, where a word has several."""
    source: Any = answer.word_source
    (found,) = evidence_of_one(source.rows, source.number, source.layouts, source.pictures, None, token)
    return found


def touches(evidence: Any, boxes: Any) -> float:
    (best,) = evidence.top_patches(1)
    return float(any(metrics.iou(best, box) > 0 for box in boxes))


class Given:
    """A processor that lays out pictures like LLaVA's and gives the benchmark's own prompt, whatever is asked."""

    image_token, patch_size, num_additional_image_tokens = "<image>", PATCH, 1
    vision_feature_select_strategy = "default"

    def __init__(self, model: Any) -> None:
        side = SIDE * PATCH
        self.image_processor = CLIPImageProcessorPil(
            size={"shortest_edge": side}, crop_size={"height": side, "width": side}
        )
        self._inputs = prompt(model, TOKENS)

    def __call__(self, images: Any, **_: Any) -> BatchFeature:
        pixels = self.image_processor(images, return_tensors="pt")["pixel_values"]
        return BatchFeature({**self._inputs, "pixel_values": pixels})

    def decode(self, ids: Any, skip_special_tokens: bool = False) -> str:
        """Letters, and a space now and then."""
        return "".join(" " if i % 5 == 0 else chr(97 + i % 26) for i in torch.as_tensor(ids).tolist())

    def batch_decode(self, rows: Any, skip_special_tokens: bool = False) -> list[str]:
        return [self.decode(one) for one in rows]


def cost(rounds: int, seconds: float) -> list[Row]:
    decoder = Decoder()
    model = random_llava(decoder)
    vlm = vea.wrap(model, Given(model), layers=list(LAYERS))
    random = np.random.default_rng(0)
    pictures = [Image.fromarray(random.integers(0, 256, (240, 320, 3), dtype=np.uint8)) for _ in range(4)]

    def ask(words: bool) -> float:
        taken: list[Any] = []

        def once() -> None:
            answer = vlm.ask(pictures, "what?", words=words, max_new_tokens=NEW_TOKENS, min_new_tokens=NEW_TOKENS)
            taken.append(len(answer.words) if words else 0)

        return reports.seconds(once)

    measures = {"with": partial(ask, True), "without": partial(ask, False)}
    with reports.progress(rounds) as tick:
        found = alternate(measures, rounds, tick, budget=seconds)
    shape = {**decoder.as_dict(), "prompt": TOKENS, "new": NEW_TOKENS, "pictures": len(pictures)}
    note = f"{Spread.of(found['without']).p50:.3g} s without, {len(found['without'])} rounds; two answers each"
    spread = ratios(found["with"], found["without"])
    return [
        row(
            "ask() with words / without",
            spread,
            "×",
            target="P10",
            limit=LIMIT,
            shape=shape,
            dtype=torch.float32,
            note=note,
        )
    ]


if __name__ == "__main__":
    main()
