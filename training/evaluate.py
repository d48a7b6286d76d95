"""Profile the embedded model, measure it on held-out pictures, and write both into its folder.

python -m training.evaluate CACHE RUN/final vea_sdk/tiny/checkpoint
"""

from __future__ import annotations

import argparse
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score
from transformers import AutoModelForImageTextToText, AutoProcessor

import vea_sdk as vea
from vea_sdk.evaluation import Dataset
from vea_sdk.grounding.samples import Sample
from vea_sdk.profiles.profile import PROFILE_FILE, Profile
from vea_sdk.prompts import PLAIN_PROMPT
from vea_sdk.tiny import draw, low_contrast, mask, noise
from vea_sdk.tiny.held_out_set import asked

TEST_SEED, PROFILE_SEED = 0, 10_000
MIN_CERTAINTY = 0.74  # set beforehand, on none of the pictures that test it
SIGMAS = (0.5, 0.1)  # the method's smoothing, and a narrower one

CONDITIONS: dict[str, Callable[[Image.Image, int], Image.Image]] = {
    "clean": lambda image, seed: image,
    "noise": lambda image, seed: noise(image, seed),
    "low contrast": lambda image, seed: low_contrast(image),
    "masking": lambda image, seed: mask(image, seed),
}


def samples(first: int, count: int, condition: str = "clean") -> Dataset:
    """One question about each picture, whichever the seed draws, under a degradation."""
    spoil = CONDITIONS[condition]
    found = Dataset((asked(seed) for seed in range(first, first + count)), "drawn pictures")
    return found.change(lambda image, seed: spoil(image, int(seed)), condition)


def labels(sample: Sample, grid: int) -> np.ndarray:
    """Which patches overlap a box (square pictures, plain resize), flat."""
    cell = sample.image.width / grid
    low, high = np.arange(grid) * cell, (np.arange(grid) + 1) * cell
    found = np.zeros((grid, grid), bool)
    for x0, y0, x1, y1 in sample.boxes:
        found |= ((low < y1) & (high > y0))[:, None] & ((low < x1) & (high > x0))[None, :]
    return found.ravel()


@torch.no_grad()
def layer_auroc(model: torch.nn.Module, processor: object, sample: Sample) -> list[float]:
    """AUROC per layer of the last prompt token's head-averaged attention, from Transformers' eager attention."""
    text = PLAIN_PROMPT.format(question=sample.question)
    turn = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}
    prompt = processor.apply_chat_template([turn], add_generation_prompt=True)  # type: ignore[attr-defined]
    inputs = processor(images=sample.image, text=prompt, return_tensors="pt")  # type: ignore[operator]
    seen = inputs["input_ids"][0] == model.config.image_token_id
    attentions = model(**inputs, output_attentions=True).attentions
    truth = labels(sample, math.isqrt(int(seen.sum())))
    return [roc_auc_score(truth, layer[0].mean(0)[-1][seen].numpy()) for layer in attentions]


def profile(folder: Path, count: int = 100) -> Profile:
    """The top tenth of the layers by mean AUROC on pictures set aside for profiling."""
    model = AutoModelForImageTextToText.from_pretrained(folder, attn_implementation="eager")
    processor = AutoProcessor.from_pretrained(folder)
    rows = [layer_auroc(model, processor, sample) for sample in samples(PROFILE_SEED, count)]
    mean = np.mean(rows, 0)
    best = np.argsort(-mean)[: math.ceil(0.1 * len(mean))]
    return Profile(
        model="vea-tiny",
        layers=tuple(sorted(int(layer) for layer in best)),
        source=f"{count} generated pictures, seeds {PROFILE_SEED} to {PROFILE_SEED + count - 1}",
        n_layers=len(mean),
        auroc=tuple(round(float(value), 4) for value in mean),
        n_samples=count,
        min_certainty=MIN_CERTAINTY,
    )


def answers(folder: Path, condition: str, count: int, sigma: float) -> str:
    """One row of the card's first table: exact match of both passes, and how many answers changed."""
    vlm = vea.load(folder, device="cpu", sigma=sigma)
    found = vea.evaluate(vlm, samples(TEST_SEED, count, condition), ["base", "vea"], batch=16, max_new_tokens=16)
    once, again = (found.methods[name].metrics["em"].value for name in ("base", "vea"))
    changed = found.methods["vea"].comparison
    return f"| {condition} | {sigma} | {once:.1%} | {again:.1%} | +{changed.gained} −{changed.lost} |"


def looks(folder: Path, condition: str, count: int) -> str:
    """One row of the card's second table: mean AUROC of every layer."""
    model = AutoModelForImageTextToText.from_pretrained(folder, attn_implementation="eager")
    processor = AutoProcessor.from_pretrained(folder)
    rows = [layer_auroc(model, processor, sample) for sample in samples(TEST_SEED, count, condition)]
    return f"| {condition} | " + " | ".join(f"{value:.3f}" for value in np.mean(rows, 0)) + " |"


def absent(folder: Path, count: int) -> float:
    """Share of unanswerable questions that the model declines."""
    vlm = vea.load(folder, device="cpu")
    unanswerable = (draw(seed, absent=True)[-1] for seed in range(TEST_SEED, TEST_SEED + count))
    return vea.evaluate(vlm, unanswerable, ["base"], batch=16, max_new_tokens=16).methods["base"].metrics["em"].value


def unseen(cache: Path, count: int) -> float:
    """Share of the test questions whose exact answer stands on no training picture."""
    known = {str(v).lower() for path in cache.glob("*.npz") for v in np.load(path)["values"].ravel()}
    return sum(sample.answers[0].lower() not in known for sample in samples(TEST_SEED, count)) / count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", type=Path)
    parser.add_argument("trained", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pictures", type=int, default=200)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    for path in [*options.trained.iterdir(), Path("LICENSE")]:
        shutil.copyfile(path, options.folder / path.name)
    found = profile(options.folder)
    found.save(options.folder / PROFILE_FILE)
    folder, count, layers = options.folder, options.pictures, range(found.n_layers or 0)
    said = [
        "| pictures | σ | asked once | asked again | changed |",
        "|---|---|---|---|---|",
        *(answers(folder, condition, count, sigma) for condition in CONDITIONS for sigma in SIGMAS),
    ]
    looked = [
        "| pictures | " + " | ".join(f"layer {i}" for i in layers) + " |",
        "|---|" + "---|" * len(layers),
        *(looks(folder, condition, count) for condition in CONDITIONS),
    ]
    card = (Path(__file__).parent / "card.md").read_text(encoding="utf-8")
    figures = {
        "ANSWERS": "\n".join(said),
        "AUROC": "\n".join(looked),
        "PICTURES": str(options.pictures),
        "ABSENT": f"{absent(options.folder, options.pictures):.1%}",
        "UNSEEN": f"{unseen(options.cache, options.pictures):.0%}",
        "PARAMETERS": f"{sum(p.numel() for p in vea.load(options.folder, device='cpu').model.parameters()):,}",
        "MEGABYTES": f"{(options.folder / 'model.safetensors').stat().st_size / 1e6:.1f}",
        "LAYERS": ", ".join(map(str, found.layers)),
    }
    for name, value in figures.items():
        card = card.replace(f"[{name}]", value)
    (options.folder / "README.md").write_text(card, encoding="utf-8")
    print(card)


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
