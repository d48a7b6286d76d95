"""``vea profile``: which layers of a model look at the evidence."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from vea_sdk import profiles, tiny
from vea_sdk.cli.ask import TINY, DeviceOption, DtypeOption, ModelOption, load_model
from vea_sdk.cli.data import (
    BoxesOption,
    ColumnsOption,
    DataOption,
    ImagesOption,
    OutsideFlag,
    SamplesOption,
    ShuffleFlag,
    SplitOption,
    open_data,
)
from vea_sdk.cli.output import JsonFlag, check_folder, progress, progress_bar, report, seconds
from vea_sdk.evaluation.datasets import Dataset
from vea_sdk.evaluation.plot import can_draw
from vea_sdk.grounding.metrics import Rule
from vea_sdk.grounding.probes import probes
from vea_sdk.grounding.profiling import Measurement, measure, profile_of
from vea_sdk.grounding.profiling.study import study, write
from vea_sdk.grounding.samples import Sample
from vea_sdk.profiles import Profile


def profile(
    model: ModelOption,
    samples: SamplesOption = 100,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the drawn pictures, and of --shuffle.")] = 0,
    kinds: Annotated[
        str | None, typer.Option("--kinds", help="Kinds of drawn pictures, such as receipt,table.")
    ] = None,
    font: Annotated[Path | None, typer.Option("--font", help="Font file for the drawn pictures.")] = None,
    data: DataOption = None,
    images: ImagesOption = None,
    split: SplitOption = None,
    columns: ColumnsOption = None,
    boxes: BoxesOption = "pixels",
    outside: OutsideFlag = False,
    shuffle: ShuffleFlag = False,
    rule: Annotated[Rule, typer.Option("--rule", help="How much of a patch the evidence must cover.")] = "any",
    fraction: Annotated[float, typer.Option("--fraction", help="Share of the layers to choose.")] = 0.1,
    layers: Annotated[str, typer.Option("--layers", help="Those to choose among: all, numbers, or 0.5:1.0.")] = "all",
    batch: Annotated[int, typer.Option("--batch", min=1, help="Samples that run together.")] = 8,
    device: DeviceOption = None,
    dtype: DtypeOption = "auto",
    out: Annotated[Path | None, typer.Option("--out", help="Folder; by default vea-output/profile-MODEL.")] = None,
    install: Annotated[bool, typer.Option("--install", help="Use the profile whenever this model is wrapped.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Find the layers of MODEL whose attention points at the evidence, on drawn pictures or data of your own.

    Figures of each sample are added to OUT/samples.jsonl as they come; the same command goes on where it was
    interrupted.
    """
    if not 0 < fraction <= 1:
        raise typer.BadParameter(f"{fraction} is not above 0 and at most 1.", param_hint="--fraction")
    if install:
        check_folder(profiles.user_folder(), "--install")
    drawn = data is None and model != TINY
    if not drawn and (kinds or font):
        raise typer.BadParameter("--kinds and --font are for drawn pictures, and none are drawn here.")
    chosen: Sequence[Sample]
    if drawn:
        chosen = probes(samples, seed, None if kinds is None else kinds.split(","), font)
    elif data in (None, TINY):
        chosen = tiny.profiling_set(samples, seed)
    else:
        chosen = open_data(
            model,
            data,
            samples,
            images=images,
            split=split,
            columns=columns,
            boxes=boxes,
            outside=outside,
            shuffle=shuffle,
            seed=seed,
        )
    source = chosen.name if isinstance(chosen, Dataset) else f"{samples} drawn pictures, seed {seed}"
    started = time.perf_counter()
    vlm = load_model(model, layers, device, dtype)
    name = profiles.model_name(vlm.adapter.model)
    folder = out or Path("vea-output") / f"profile-{profiles.file_stem(name)}"
    check_folder(folder)
    earlier = profiles.find(vlm.model) if install else None
    loaded = time.perf_counter()
    with progress_bar("looking", len(chosen)) as advance:
        found = measure(
            vlm,
            chosen,
            layers=vlm.layers,
            rule=rule,
            batch=batch,
            journal=folder / "samples.jsonl",
            progress=advance,
        )
    measured = time.perf_counter()
    with progress("resampling and drawing"):
        made = profile_of(found, fraction, source=source)
        files = {"journal": folder / "samples.jsonl"} | write(found, made, folder) | _draw(found, made, folder)
    if install:
        least = earlier.min_certainty if earlier else None  # of the model's answers, whichever layers look
        files["installed"] = profiles.install(replace(made, min_certainty=least))
    timings = {"load": loaded - started, "measure": measured - loaded, "write": time.perf_counter() - measured}
    fields = _summary(made) | ({"profile": made.to_dict(), **study(found, fraction)} if as_json else {})
    where = {name: str(path) for name, path in files.items()}
    report(fields | {"files": where, "timings": seconds(timings)}, as_json)


def _summary(made: Profile) -> dict[str, Any]:
    """The choice, and what it is worth."""
    read = [value for value in made.auroc if value is not None]
    best = [value for layer, value in enumerate(made.auroc) if value is not None and layer in made.layers]
    return {
        "model": made.model,
        "layers": list(made.layers),
        "auroc": sum(best) / len(best),
        "auroc_all_layers": sum(read) / len(read),
        "chosen_share": [made.chosen_share[layer] for layer in made.layers],
        "n_samples": made.n_samples,
        "skipped": made.skipped,
    }


def _draw(found: Measurement, made: Profile, folder: Path) -> dict[str, Path]:
    if not can_draw():
        print("No figures: they need matplotlib, pip install 'vea-sdk[viz]'.", file=sys.stderr)
        return {}
    from vea_sdk.grounding.profiling.figures import draw

    return draw(found, made, folder)
