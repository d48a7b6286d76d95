"""``vea analyze``: where a model's attention goes when it answers rightly, and when it does not."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from vea_sdk import tiny
from vea_sdk.cli.ask import DeviceOption, DtypeOption, LayersOption, ModelOption, load_model
from vea_sdk.cli.output import JsonFlag, OutFolder, progress_bar, report


def analyze(
    model: ModelOption,
    samples: Annotated[int, typer.Option("--samples", min=1, help="How many samples.")] = 100,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Samples that run together.")] = 8,
    layers: LayersOption = "profiled",
    highlight: Annotated[bool, typer.Option(help="Also ask about the highlighted pictures.")] = True,
    show: Annotated[str | None, typer.Option("--show", help="Id of the sample whose layers are drawn.")] = None,
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens", min=1)] = 32,
    device: DeviceOption = None,
    dtype: DtypeOption = "auto",
    out: OutFolder = Path("vea-output/analysis"),
    as_json: JsonFlag = False,
) -> None:
    """Split MODEL's attention by section of the prompt and by whether it answered rightly; tables and figures."""
    from vea_sdk.evaluation import analysis

    vlm = load_model(model, layers, device, dtype)
    with progress_bar("analyzing", samples) as advance:
        found = analysis.analyze(
            vlm,
            tiny.held_out(samples),
            batch=batch,
            highlight=highlight,
            show=show,
            max_new_tokens=max_new_tokens,
            tick=advance,
        )
    written = analysis.write(found, out)
    if not any(path.suffix == ".png" for path in written):
        print("No figures: they need matplotlib, pip install 'vea-sdk[viz]'.", file=sys.stderr)
    fields: dict[str, Any] = analysis.summary(found) | {"files": [str(path) for path in written]}
    report(fields, as_json)
