"""``vea eval``: does showing the evidence help this model on these data?"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from vea_sdk.cli.ask import AttendWithOption, DeviceOption, DtypeOption, LayersOption, ModelOption, load_model
from vea_sdk.cli.calibration import calibrate_profile, check_calibration, profile_to_calibrate
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
from vea_sdk.cli.output import JsonFlag, OutFolder, check_folder, progress_bar, report, say
from vea_sdk.errors import InvalidInputError, VeaError
from vea_sdk.evaluation import METHODS, WAYS, Evaluation
from vea_sdk.evaluation import evaluate as run
from vea_sdk.evaluation.methods import Method, resolve_methods, sweep
from vea_sdk.evaluation.plot import can_draw, draw, draw_certainty
from vea_sdk.evaluation.scoring import Seen
from vea_sdk.evidence.constants import Constants
from vea_sdk.grounding.metrics import Rule
from vea_sdk.whole_file import write_whole


def evaluate(
    model: ModelOption,
    data: DataOption = None,
    samples: SamplesOption = 200,
    methods: Annotated[
        str,
        typer.Option(
            "--methods", help=f"all ({','.join(METHODS)}), or some; also {','.join(WAYS)}; compared with the first."
        ),
    ] = "base,inst,vea",
    over: Annotated[
        list[str] | None,
        typer.Option(
            "--sweep",
            help="Also measure the method with other constants, such as sigma=0.02,0.1,0.5; alpha and lam likewise. "
            "Several: every combination.",
        ),
    ] = None,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Samples that run together.")] = 8,
    images: ImagesOption = None,
    split: SplitOption = None,
    columns: ColumnsOption = None,
    boxes: BoxesOption = "pixels",
    outside: OutsideFlag = False,
    shuffle: ShuffleFlag = False,
    degrade: DegradeOption = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the bootstrap, probes, --shuffle and --degrade.")] = 0,
    layers: LayersOption = "profiled",
    lam: Annotated[float, typer.Option("--lam", help="λ of denoising.")] = 10.0,
    sigma: Annotated[float, typer.Option("--sigma", help="σ of smoothing.")] = 0.5,
    alpha: Annotated[float, typer.Option("--alpha", help="α of highlighting.")] = 0.5,
    rule: Annotated[Rule, typer.Option("--rule", help="How much of a patch the evidence must cover.")] = "any",
    seen_by: Annotated[Seen, typer.Option("--seen-by", help="When evidence counts as seen.")] = "auroc",
    seen_threshold: Annotated[float, typer.Option("--seen-threshold", min=0, max=1, help="Its least AUROC.")] = 0.5,
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens", min=1)] = 64,
    calibrate: Annotated[
        bool,
        typer.Option("--calibrate", help="Find a threshold of certainty in base's answers; keep it in the profile."),
    ] = False,
    precision: Annotated[
        float, typer.Option("--precision", help="Of the answers that --calibrate keeps, the least share that is right.")
    ] = 0.9,
    attend_with: AttendWithOption = None,
    device: DeviceOption = None,
    dtype: DtypeOption = "auto",
    out: OutFolder = Path("vea-output/eval"),
    as_json: JsonFlag = False,
) -> None:
    """Compare ways of asking MODEL: the plain question, the pointing one, and the evidence shown.

    Results are added to OUT/results.jsonl as they come; the same command goes on where it was interrupted.
    """
    chosen = _methods(methods, over or [])
    if calibrate:
        check_calibration(chosen, precision)
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
    vlm = load_model(model, layers, device, dtype, attend_with, lam=lam, sigma=sigma, alpha=alpha)
    profile = profile_to_calibrate(vlm) if calibrate else None
    with progress_bar("evaluating", len(found)) as advance:
        result = run(
            vlm,
            found,
            chosen,
            results=out / "results.jsonl",
            batch=batch,
            max_new_tokens=max_new_tokens,
            rule=rule,
            seen_by=seen_by,
            seen_threshold=seen_threshold,
            seed=seed,
            progress=advance,
        )
    fields: dict[str, Any] = {"files": _write(result, out)}
    failure = None
    if profile is not None:
        fields["calibration"], failure = calibrate_profile(result, profile, precision)
    if as_json:
        report(result.to_dict() | fields, as_json)
    else:
        say(result.table())
        report({"seconds": result.seconds, "resumed": result.resumed, **fields}, as_json)
    if failure is not None:
        raise VeaError(failure)


def _methods(text: str, over: list[str]) -> tuple[Method, ...]:
    try:
        named = resolve_methods(list(METHODS) if text == "all" else [name.strip() for name in text.split(",")])
    except InvalidInputError as error:
        raise typer.BadParameter(str(error), param_hint="--methods") from error
    try:
        return (*named, *(sweep(**_axes(over)) if over else ()))
    except InvalidInputError as error:
        raise typer.BadParameter(str(error), param_hint="--sweep") from error


def _axes(over: list[str]) -> dict[str, list[float]]:
    """``sigma=0.1,0.5`` and the like → values by the name of the constant."""
    axes: dict[str, list[float]] = {}
    for text in over:
        name, _, values = text.partition("=")
        try:
            numbers = [float(value) for value in values.split(",")]
        except ValueError as error:
            raise InvalidInputError(f"{text!r} must be such as sigma=0.02,0.1,0.5.") from error
        if name not in Constants._fields or name in axes:
            raise InvalidInputError(f"{text!r}: give sigma, alpha and lam, each once.")
        axes[name] = numbers
    return axes


def _write(result: Evaluation, out: Path) -> list[str]:
    """The summary as JSON, as a table, and as pictures where matplotlib is installed."""
    write_whole(out / "summary.json", json.dumps(result.to_dict(), indent=2, ensure_ascii=False) + "\n")
    write_whole(out / "summary.md", result.table())
    names = ["results.jsonl", "summary.json", "summary.md"]
    if can_draw():
        draw(result, out / "summary.png")
        names.append("summary.png")
        if any(method.certainty for method in result.methods.values()):
            draw_certainty(result, out / "certainty.png")
            names.append("certainty.png")
    else:
        print("No figure: it needs matplotlib, pip install 'vea-sdk[viz]'.", file=sys.stderr)
    return [str(out / name) for name in names]
