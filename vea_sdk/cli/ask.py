"""``vea ask`` and ``vea attend``: a picture, a question, a model of your own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from vea_sdk import tiny
from vea_sdk.cli.output import JsonFlag, OutFolder, parse_layers, progress, report, save_picture, seconds
from vea_sdk.evidence import Evidence
from vea_sdk.loading import load
from vea_sdk.pipeline import VLM, Mode

TINY = "tiny"
"""What ``--model`` and ``--data`` call the embedded model and its held-out pictures."""

ImageArgument = Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="Picture file.")]
QuestionArgument = Annotated[str, typer.Argument(help="Question about the picture.")]
ModelOption = Annotated[str, typer.Option("--model", help="Checkpoint folder or hub name; tiny is the embedded model.")]
LayersOption = Annotated[
    str, typer.Option("--layers", help="profiled, all, numbers such as 18,22,24, a span 0.5:1.0, a profile's .json.")
]
AttendWithOption = Annotated[
    str | None, typer.Option("--attend-with", help="Another checkpoint that looks while MODEL answers.")
]
DeviceOption = Annotated[str | None, typer.Option("--device", help="Such as cpu or cuda:0; by default CUDA if any.")]
DtypeOption = Annotated[str, typer.Option("--dtype", help="Such as bfloat16; auto is the checkpoint's own.")]


def ask(
    image: ImageArgument,
    question: QuestionArgument,
    model: ModelOption,
    layers: LayersOption = "profiled",
    mode: Annotated[Mode, typer.Option("--mode", help="highlight, or none to ask once.")] = "highlight",
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens", min=1)] = 64,
    attend_with: AttendWithOption = None,
    device: DeviceOption = None,
    dtype: DtypeOption = "auto",
    out: OutFolder = Path("vea-output"),
    as_json: JsonFlag = False,
) -> None:
    """Ask MODEL about IMAGE, highlight where it looked, and ask again."""
    vlm = load_model(model, layers, device, dtype, attend_with)
    with progress("asking"):
        answer = vlm.ask(image, question, mode=mode, max_new_tokens=max_new_tokens)
    fields: dict[str, Any] = {
        "question": question,
        "baseline": answer.baseline,
        "answer": answer.text,
        "mode": mode,
    }
    fields |= _shown(answer.evidence, image, out, highlighted=mode == "highlight")
    report(fields | {"timings": seconds(answer.timings)}, as_json)


def attend(
    image: ImageArgument,
    question: QuestionArgument,
    model: ModelOption,
    layers: LayersOption = "profiled",
    top: Annotated[int, typer.Option("--top", min=0, help="How many patches to list.")] = 5,
    device: DeviceOption = None,
    dtype: DtypeOption = "auto",
    out: OutFolder = Path("vea-output"),
    as_json: JsonFlag = False,
) -> None:
    """Show where MODEL looks in IMAGE before it answers; nothing is generated."""
    vlm = load_model(model, layers, device, dtype)
    with progress("looking"):
        evidence = vlm.attend(image, question)
    fields: dict[str, Any] = {"question": question, "grid": list(evidence.grid)}
    fields |= _shown(evidence, image, out, highlighted=True)
    boxes = [[round(edge, 1) for edge in box] for box in evidence.top_patches(top)]
    report(fields | {"top_patches": boxes}, as_json)


def load_model(
    model: str, layers: str, device: str | None, dtype: str, attend_with: str | None = None, **options: Any
) -> VLM:
    """Load a checkpoint, or the embedded model by the name ``tiny``; ``options`` as for :func:`vea_sdk.load`.

    Where another one looks, ``layers`` are those to read in that one.
    """
    if attend_with is not None:
        options["attend_with"] = load_model(attend_with, layers, device, dtype)
        layers = "profiled"
    selection = parse_layers(layers)
    source = tiny.checkpoint() if model == TINY else model
    with progress(f"loading {model}"):
        return load(source, device=device, dtype=dtype, layers=selection, **options)


def _shown(evidence: Evidence, image: Path, out: Path, highlighted: bool) -> dict[str, Any]:
    """Layers and the written pictures, named after the picture asked about."""
    fields: dict[str, Any] = {"layers": list(evidence.layers)}
    fields["overlay"] = save_picture(evidence.overlay(), out, f"{image.stem}-overlay.png")
    if highlighted:
        fields["highlighted"] = save_picture(evidence.highlight(), out, f"{image.stem}-highlighted.png")
    return fields
