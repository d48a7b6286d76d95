"""``vea analyze``: where a model's attention goes when it answers rightly, and when it does not."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from vea_sdk.cli.ask import AttendWithOption, DeviceOption, DtypeOption, LayersOption, ModelOption, load_model
from vea_sdk.cli.data import (
    BoxesOption,
    ColumnsOption,
    DataOption,
    DegradeOption,
    ImagesOption,
    OutsideFlag,
    SamplesOption,
    ShuffleFlag,
    SplitOption,
    open_data,
)
from vea_sdk.cli.output import JsonFlag, OutFolder, check_folder, progress_bar, report
from vea_sdk.evaluation import analysis
from vea_sdk.grounding.metrics import Rule


def analyze(
    model: ModelOption,
    data: DataOption = None,
    samples: SamplesOption = 100,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Samples that run together.")] = 8,
    images: ImagesOption = None,
    split: SplitOption = None,
    columns: ColumnsOption = None,
    boxes: BoxesOption = "pixels",
    outside: OutsideFlag = False,
    shuffle: ShuffleFlag = False,
    degrade: DegradeOption = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of --shuffle and --degrade.")] = 0,
    layers: LayersOption = "profiled",
    highlight: Annotated[bool, typer.Option(help="Also ask about the highlighted pictures.")] = True,
    show: Annotated[str | None, typer.Option("--show", help="Id of the sample whose layers are drawn.")] = None,
    rule: Annotated[Rule, typer.Option("--rule", help="How much of a patch the evidence must cover.")] = "any",
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens", min=1)] = 64,
    attend_with: AttendWithOption = None,
    device: DeviceOption = None,
    dtype: DtypeOption = "auto",
    out: OutFolder = Path("vea-output/analysis"),
    as_json: JsonFlag = False,
) -> None:
    """Split MODEL's attention by section of the prompt and by whether it answered rightly; tables and figures.

    Results are added to OUT/results.jsonl as they come; the same command goes on where it was interrupted.
    """
    found = open_data(
        model,
        data,
        samples,
        images=images,
        split=split,
        columns=columns,
        boxes=boxes,
        outside=outside,
        shuffle=shuffle,
        degrade=degrade,
        seed=seed,
    )
    check_folder(out)
    vlm = load_model(model, layers, device, dtype, attend_with)
    with progress_bar("analyzing", len(found)) as advance:
        result = analysis.analyze(
            vlm,
            found,
            results=out / "results.jsonl",
            batch=batch,
            highlight=highlight,
            show=show,
            max_new_tokens=max_new_tokens,
            rule=rule,
            progress=advance,
        )
    written = analysis.write(result, out)
    if not any(path.suffix == ".png" for path in written):
        print("No figures: they need matplotlib, pip install 'vea-sdk[viz]'.", file=sys.stderr)
    report(analysis.summary(result) | {"files": [str(path) for path in written]}, as_json)
