"""Beside other packages that read attention from vision-language models: the same model, prompt and layers.

    pip install vl-saliency==1.1.6 vlmprobe==1.0.1 && python benchmarks/peers.py

The prompt goes through the model once, and the last prompt token's attention over the image tokens is wanted, as a mean
over heads, for every layer. All three give these numbers, and the script checks that they agree. What else they do:

* vea_sdk reads that one row next to SDPA, and nothing else.
* vl-saliency runs eager attention with ``output_attentions``, copies every layer's H·N·N weights to a joined tensor and
  picks the image columns of every query and head; gradients, which it also offers, are off here.
* vlmprobe runs eager attention under hooks, copies every layer's H·N·N weights, and adds entropy, concentration and
  group masses per head and query. Its own adapters want Transformers 5.3, so it is given one for this model, by the
  interface it documents.

A package that is not installed is left out with a line on stderr.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from importlib import metadata
from types import SimpleNamespace
from typing import Any

import memory
import reports
import torch
from torch import Tensor

from vea_sdk.benchmark import Row, Spread, alternate, ratios, row
from vea_sdk.benchmark.models import IMAGE_TOKEN, Decoder, prompt, random_llava
from vea_sdk.capture import capture

SIZES = {  # decoder and tokens of the prompt; one picture of 256 tokens, which is all that vl-saliency assumes
    "tiny": (Decoder(4, 4, 2, 32, 256), 384),
    "medium": (Decoder(8, 16, 4, 64, 1024), 767),
}
WHAT = {
    "vl-saliency": "all layers, heads and queries over the image tokens",
    "vlmprobe": "all layers, heads, queries and keys, with statistics of each row",
}

Capture = Callable[[], Tensor]  # -> [layers, image tokens]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    reports.add_arguments(parser)
    options = parser.parse_args()
    present = {name: make for name, make in MAKERS.items() if installed(name)}
    if not present:
        return
    rows: list[Row] = []
    with reports.progress(len(SIZES) * len(present)) as tick:
        for size, (decoder, tokens) in SIZES.items():
            model = random_llava(decoder)
            inputs = prompt(model, tokens)
            for name, make in present.items():
                shape = {"size": size, **decoder.as_dict(), "prompt": tokens}
                rows += compare(name, make(model, inputs), partial(ours, model, inputs), model, shape, options.rounds)
                tick()
    reports.finish(rows, "peers", options)


def installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        print(f"skipped: {name} is not installed (pip install {name})", file=sys.stderr)
        return False
    return True


def compare(name: str, theirs: Capture, mine: Capture, model: Any, shape: Any, rounds: int) -> list[Row]:
    """Time, and peak memory of torch's allocator, of the other package over those of this one."""

    def eager() -> Tensor:
        model.set_attn_implementation("eager")
        try:
            return theirs()
        finally:
            model.set_attn_implementation("sdpa")

    torch.testing.assert_close(eager(), mine(), rtol=1e-4, atol=1e-6)
    taken = alternate({name: partial(reports.seconds, eager), "vea_sdk": partial(reports.seconds, mine)}, rounds)
    peaks = {"theirs": memory.peak(eager), "ours": memory.peak(mine)}
    medians = (1e3 * Spread.of(taken[one]).p50 for one in (name, "vea_sdk"))
    label = f"{name} {metadata.version(name)} ({WHAT[name]}) / vea_sdk (all layers, the last token, mean of heads)"
    common = {"shape": shape, "dtype": torch.float32, "better": "higher"}
    return [
        row(f"{label}: time", ratios(taken[name], taken["vea_sdk"]), "×",
            note="{:.0f} ms against {:.0f} ms, the model's own pass included".format(*medians), **common),
        row(f"{label}: peak memory of the pass", peaks["theirs"] / peaks["ours"], "×",
            note=f"{peaks['theirs'] / 1e6:.1f} MB against {peaks['ours'] / 1e6:.1f} MB beyond the weights", **common),
    ]  # fmt: skip


def ours(model: Any, inputs: Any) -> Tensor:
    with torch.no_grad(), capture(model, "all") as session:
        model(**inputs, use_cache=False)
    return session.attention[:, 0, 0]


def vl_saliency(model: Any, inputs: Any) -> Capture:
    from vl_saliency.core.extractor import SaliencyExtractor

    # Of the processor only the padding id is asked for.
    processor = SimpleNamespace(tokenizer=SimpleNamespace(pad_token_id=0))
    extractor = SaliencyExtractor(model, processor, store_grads=False)

    def run() -> Tensor:
        trace = extractor.capture(None, input_ids=inputs["input_ids"], pixel_values=inputs["pixel_values"])
        return trace.attn[0][:, :, -1].mean(1).flatten(1)  # [layers, heads, queries, rows, columns]

    return run


def vlmprobe(model: Any, inputs: Any) -> Capture:
    from vlmprobe import Prober
    from vlmprobe.adapters import HookPoint, ModelSpec, ProbeInputs, TokenLayout, TorchModelAdapter

    prefix = "model.language_model.layers"
    layers = range(model.config.text_config.num_hidden_layers)
    sites = {f"attention.{i}": HookPoint(f"{prefix}.{i}.self_attn", selector=1) for i in layers}
    sites |= {f"residual.{i}": HookPoint(f"{prefix}.{i}") for i in layers}
    spec = ModelSpec({i: f"residual.{i}" for i in layers}, attentions={i: f"attention.{i}" for i in layers},
                     forward_defaults={"use_cache": False, "return_dict": True})  # fmt: skip
    prober = Prober(model, adapter=TorchModelAdapter(model, sites, spec=spec))
    visual = inputs["input_ids"] == IMAGE_TOKEN
    layout = TokenLayout(torch.ones_like(visual), visual, token_ids=inputs["input_ids"])
    method = prober.attention.profile(queries="last_prompt", include_attention=True)

    def run() -> Tensor:
        result = method.run(ProbeInputs(inputs, layout))
        return result.tensors["attention"][:, 0, :, -1].mean(1)[:, visual[0]]  # [layers, batch, heads, queries, keys]

    return run


MAKERS: dict[str, Callable[[Any, Any], Capture]] = {"vl-saliency": vl_saliency, "vlmprobe": vlmprobe}

if __name__ == "__main__":
    main()
