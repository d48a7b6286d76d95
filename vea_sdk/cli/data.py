"""Which samples a command works on: options and how they are read."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Annotated

import typer

from vea_sdk import tiny
from vea_sdk.cli.ask import TINY
from vea_sdk.errors import InvalidInputError
from vea_sdk.evaluation.datasets import Dataset, read
from vea_sdk.grounding.probes import probes
from vea_sdk.grounding.samples import BoxUnit

PROBES = "probes"
"""What ``--data`` calls the pictures of :func:`vea_sdk.probes`."""

DataOption = Annotated[
    str | None,
    typer.Option(
        "--data",
        help="Folder with samples.jsonl, file of VisualCoT, folder of the library datasets, hf:NAME to fetch one, "
        "probes that are drawn, or tiny, the embedded model's own pictures.",
    ),
]
ImagesOption = Annotated[Path | None, typer.Option("--images", help="Where VisualCoT's pictures lie.")]
SplitOption = Annotated[str | None, typer.Option("--split", help="Split of a data set of datasets.")]
ColumnsOption = Annotated[
    str | None, typer.Option("--columns", help="Its columns, such as answers=answers.answer,image=picture.")
]
SamplesOption = Annotated[int, typer.Option("--samples", min=1, help="How many samples, the first ones.")]
BoxesOption = Annotated[
    BoxUnit, typer.Option("--boxes", help="What boxes of --data count in: pixels, or relative for 0 to 1.")
]
OutsideFlag = Annotated[
    bool, typer.Option("--outside", help="Pictures of --data may lie outside of its folder; for data you trust.")
]
ShuffleFlag = Annotated[bool, typer.Option("--shuffle", help="Take them in an order drawn from --seed.")]
DegradeOption = Annotated[
    str | None,
    typer.Option("--degrade", help="Spoil the pictures: noise:0.3, resolution:0.5, mask:0.2 or contrast:0.15."),
]


def open_data(
    model: str,
    data: str | None,
    samples: int,
    *,
    images: Path | None = None,
    split: str | None = None,
    columns: str | None = None,
    boxes: BoxUnit = "pixels",
    outside: bool = False,
    shuffle: bool = False,
    degrade: str | None = None,
    seed: int = 0,
) -> Dataset:
    """The samples that the options name; fewer than ``samples`` when the data set has no more."""
    if data is None and model != TINY:
        raise typer.BadParameter("this model needs data: probes, or one of those in --help.", param_hint="--data")
    if data in (None, TINY):
        found = tiny.held_out(tiny.HELD_OUT if shuffle else min(samples, tiny.HELD_OUT))
    elif data == PROBES:
        found = Dataset.of(probes(samples, seed), f"probes of seed {seed}")
    else:
        assert data is not None
        found = read(data, images, split, _columns(columns), boxes=boxes, outside=outside)
    if shuffle:
        found = found.shuffle(seed)
    found = found[:samples]
    return found if degrade is None else degraded(found, degrade, seed)


def _columns(text: str | None) -> dict[str, str]:
    pairs = [pair.partition("=") for pair in text.split(",")] if text else []
    if not all(ours and theirs for ours, _, theirs in pairs):
        raise typer.BadParameter(
            f"{text!r}: give pairs such as image=picture,answers=answers.answer.", param_hint="--columns"
        )
    return {ours.strip(): theirs.strip() for ours, _, theirs in pairs}


def degraded(found: Dataset, text: str, seed: int) -> Dataset:
    """The samples with their pictures spoiled, such as ``noise:0.3``; a sample's seed depends on its id."""
    try:
        how = tiny.degradation(text)
    except InvalidInputError as error:
        raise typer.BadParameter(str(error), param_hint="--degrade") from error
    # A seed per sample, the same whichever samples are taken beside it.
    return found.change(lambda image, name: how(image, zlib.crc32(f"{seed} {name}".encode())), f"{text}, seed {seed}")
