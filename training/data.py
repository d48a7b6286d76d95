"""Training pictures: rendered once into shards on disk, turned into batches with fresh questions and degradations."""

from __future__ import annotations

import argparse
import string
from pathlib import Path
from random import Random

import numpy as np
import torch
from PIL import Image

from vea_sdk.tiny.fields import ABSENT, all_fields
from vea_sdk.tiny.page import SIDE, font
from vea_sdk.tiny.pictures import Picture, compose

INPUT, PATCH = 224, 16
GRID = INPUT // PATCH
ALPHABET = " " + string.digits + string.ascii_uppercase + ".:/"
FIELDS = all_fields()
MAX_GLYPHS, MAX_ENTRIES, MAX_LENGTH = 160, 8, 12
SHARD = 500
FIRST_SEED = 1_000_000
"""Training seeds start here; everything below is kept for profiling and tests."""


def glyphs(picture: Picture) -> np.ndarray:
    """Every drawn character: alphabet index, centre x and y in model pixels, entry + 1, index in its value + 1."""
    rows = []
    for run in picture.runs:
        letters = font(run.size)
        for i, character in enumerate(run.text):
            if character == " ":
                continue
            x = run.x + (letters.getlength(run.text[:i]) + letters.getlength(run.text[: i + 1])) / 2
            y = run.y + run.size * 0.62
            entry = -1 if run.entry is None else run.entry
            rows.append((ALPHABET.index(character), x, y, entry + 1, i + 1 if run.entry is not None else 0))
    table = np.zeros((MAX_GLYPHS, 5), np.float32)
    table[: len(rows)] = rows
    table[:, 1:3] *= INPUT / SIDE
    return table


def render_shard(number: int, folder: Path) -> None:
    """Render ``SHARD`` pictures at the model's input size into one file."""
    index = {field.label: i for i, field in enumerate(FIELDS)}
    images = np.zeros((SHARD, INPUT, INPUT, 3), np.uint8)
    tables = np.zeros((SHARD, MAX_GLYPHS, 5), np.float32)
    entries = np.full((SHARD, MAX_ENTRIES), -1, np.int16)
    boxes = np.zeros((SHARD, MAX_ENTRIES, 4), np.float32)
    values = np.zeros((SHARD, MAX_ENTRIES), "U16")
    for i in range(SHARD):
        picture = compose(FIRST_SEED + number * SHARD + i)
        images[i] = picture.image.resize((INPUT, INPUT), Image.Resampling.BICUBIC)
        tables[i] = glyphs(picture)
        count = len(picture.fields)
        entries[i, :count] = [index[field.label] for field in picture.fields]
        boxes[i, :count] = np.array(picture.boxes) * INPUT / SIDE
        values[i, :count] = picture.values
    part = folder / f"{number:04}.part"
    with part.open("wb") as file:
        np.savez(file, images=images, glyphs=tables, entries=entries, boxes=boxes, values=values)
    part.rename(folder / f"{number:04}.npz")


class Cache:
    """This process's share of the shards; ``refresh`` picks up new ones while rendering goes on."""

    def __init__(self, folder: Path, rank: int = 0, of: int = 1) -> None:
        self.folder, self.rank, self.of = folder, rank, of
        self.shards: dict[str, dict[str, np.ndarray]] = {}

    def refresh(self) -> int:
        for path in sorted(self.folder.glob("*.npz"))[self.rank :: self.of]:
            if path.name not in self.shards:
                with np.load(path) as shard:
                    self.shards[path.name] = {key: shard[key] for key in shard.files}
        return len(self.shards) * SHARD

    def sample(self, count: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        names = list(self.shards)
        picks = [(names[rng.integers(len(names))], rng.integers(SHARD)) for _ in range(count)]
        return {k: np.stack([self.shards[n][k][i] for n, i in picks]) for k in self.shards[names[0]]}


def shift(batch: dict[str, np.ndarray], rng: np.random.Generator, reach: int = 6) -> None:
    """Move every picture by a few pixels, with its boxes and glyphs; the desk wraps around."""
    for i in range(len(batch["images"])):
        dx, dy = rng.integers(-reach, reach + 1, 2)
        batch["images"][i] = np.roll(batch["images"][i], (dy, dx), (0, 1))
        batch["glyphs"][i, :, 1:3] += (dx, dy)
        batch["boxes"][i] += (dx, dy, dx, dy)


def patches(box: np.ndarray) -> np.ndarray:
    """Which patches a box overlaps, bool [14, 14]."""
    low = np.arange(GRID) * PATCH
    columns = (low < box[2]) & (low + PATCH > box[0])
    rows = (low < box[3]) & (low + PATCH > box[1])
    return np.outer(rows, columns)


def reading_targets(batch: dict[str, np.ndarray]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Characters and value indices per half patch [B, 196, 2], entry label (0: none) per patch [B, 196]."""
    count = len(batch["images"])
    characters = np.zeros((count, GRID, GRID * 2), np.int64)
    order = np.zeros_like(characters)
    labels = np.zeros((count, GRID, GRID), np.int64)
    table = batch["glyphs"]
    b, g = np.nonzero(table[:, :, 0])
    last = np.argsort(-table[b, g, 0], kind="stable")  # punctuation first, so that a digit in the same half stays
    b, g = b[last], g[last]
    char, x, y, _, index = table[b, g].T
    col = np.clip(x // (PATCH // 2), 0, GRID * 2 - 1).astype(int)
    row = np.clip(y // PATCH, 0, GRID - 1).astype(int)
    characters[b, row, col] = char
    order[b, row, col] = np.minimum(index, MAX_LENGTH)
    for i, e in zip(*np.nonzero(batch["entries"] >= 0), strict=True):
        labels[i][patches(batch["boxes"][i, e])] = batch["entries"][i, e] + 1
    slots = (count, GRID * GRID, 2)
    halves = [torch.from_numpy(a.reshape(slots)) for a in (characters, order)]
    return halves[0], halves[1], torch.from_numpy(labels.reshape(count, -1))


def pixels(batch: dict[str, np.ndarray], rng: np.random.Generator, strength: float, highlight: bool) -> torch.Tensor:
    """Normalised pixels [B, 3, 224, 224] under random brightness, contrast, noise, masks and soft spotlights."""
    x = torch.from_numpy(batch["images"]).permute(0, 3, 1, 2).float().div_(255)
    for i in range(len(x)):
        if rng.random() < 0.5 * strength:
            contrast, brightness = rng.uniform(0.35, 1.1), rng.uniform(-0.15, 0.1)
            mean = x[i].mean()
            x[i] = (x[i] - mean) * contrast + mean + brightness
        if rng.random() < (0.85 if highlight else 0.2) * strength:
            x[i] *= spotlight(batch["boxes"][i][batch["entries"][i] >= 0], rng)
        if rng.random() < 0.4 * strength:
            x[i] += torch.randn(x[i].shape) * rng.uniform(0.0, 0.12)
    x = x.clamp_(0, 1)
    return (x - 0.5) / 0.5


def spotlight(boxes: np.ndarray, rng: np.random.Generator) -> torch.Tensor:
    """The factor 0.5 + 0.5·map of a highlighted picture: a smooth blob, mostly on a value, else anywhere or flat."""
    kind = rng.random()
    if kind < 0.1:
        return torch.full((INPUT, INPUT), 0.5 if kind < 0.05 else 1.0)
    if kind < 0.75 and len(boxes):
        x0, y0, x1, y1 = boxes[rng.integers(len(boxes))]
        cx, cy = (x0 + x1) / 2, (y0 + y1) / 2
    else:
        cx, cy = rng.uniform(0, INPUT, 2)
    sx, sy = rng.uniform(20, 160, 2)
    axis = torch.arange(INPUT)
    blob = torch.exp(-(((axis - cx) / sx) ** 2)[None, :] / 2 - (((axis - cy) / sy) ** 2)[:, None] / 2)
    blob = (blob - blob.min()) / (blob.max() - blob.min() + 1e-6)
    return 0.5 + 0.5 * blob


Question = tuple[str, str, np.ndarray | None]
"""A question, its answer, and the answer's box in model pixels (None: the picture does not hold it)."""


def questions(batch: dict[str, np.ndarray], rng: Random, absent: float) -> list[list[Question]]:
    """Per picture, a freshly worded question about every entry; at times one about an absent entry."""
    result = []
    for entries, values, boxes in zip(batch["entries"], batch["values"], batch["boxes"], strict=True):
        present = [FIELDS[e] for e in entries if e >= 0]
        asked: list[Question] = [
            (field.question(rng), str(value), box) for field, value, box in zip(present, values, boxes, strict=False)
        ]
        if rng.random() < absent:
            missing = [f for f in FIELDS if f.phrase not in {p.phrase for p in present}]
            asked.append((rng.choice(missing).question(rng), ABSENT, None))
        rng.shuffle(asked)
        result.append(asked)
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Render shards of training pictures.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=40)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    for shard in range(options.first, options.first + options.count):
        if not (options.folder / f"{shard:04}.npz").exists():
            render_shard(shard, options.folder)
