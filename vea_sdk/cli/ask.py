"""``vea ask`` and ``vea attend``: a picture, a question, a model of your own."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from PIL import Image

from vea_sdk import tiny
from vea_sdk.adapters import ImageLayout
from vea_sdk.cli.output import ForceFlag, JsonFlag, OutFolder, Outputs, parse_layers, progress, report, rounded, seconds
from vea_sdk.errors import InvalidInputError
from vea_sdk.evidence import Evidence, load_image
from vea_sdk.loading import load
from vea_sdk.pipeline import VLM, Answer, Candidate, Mode, Way
from vea_sdk.pipeline.conversation import one_turn
from vea_sdk.pipeline.ways import Show
from vea_sdk.views import draw_windows

TINY = "tiny"
"""What ``--model`` and ``--data`` call the embedded model and its held-out pictures."""

ImageArgument = Annotated[
    str, typer.Argument(help="Picture file, data: URL, http(s) address with --fetch, - for stdin.")
]
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
LamOption = Annotated[float, typer.Option("--lam", help="λ of denoising.")]
SigmaOption = Annotated[float, typer.Option("--sigma", help="σ of the highlight's smoothing.")]
AlphaOption = Annotated[float, typer.Option("--alpha", help="α of highlighting.")]
PromptOption = Annotated[
    str, typer.Option("--prompt", help="method, raw, or a text of your own with {question} in its place.")
]
LooksOption = Annotated[int | None, typer.Option("--looks", help="closer: how many windows to look at, 74.")]
BoxesFlag = Annotated[bool, typer.Option("--boxes", help="Draw the boxes into the overlay.")]
LegendFlag = Annotated[bool, typer.Option("--legend", help="Add a margin with the colours and their numbers.")]
FetchFlag = Annotated[bool, typer.Option("--fetch", help="Fetch an http(s) address.")]


def ask(
    image: ImageArgument,
    question: QuestionArgument,
    model: ModelOption,
    layers: LayersOption = "profiled",
    mode: Annotated[
        Mode,
        typer.Option(
            "--mode",
            help="highlight what was looked at and ask again; closer: look at windows, keep the surest answer; views: "
            "answer the best of several renderings; ensemble: several views choose each token; none: ask once.",
        ),
    ] = "highlight",
    looks: LooksOption = None,
    answers: Annotated[int | None, typer.Option("--answers", help="closer: windows that are answered, 3.")] = None,
    show: Annotated[Show | None, typer.Option("--show", help="closer: the window, or both, whole and window.")] = None,
    min_certainty: Annotated[
        str,
        typer.Option("--min-certainty", help="closer, views: certainty that another answer needs; profiled, none."),
    ] = "profiled",
    stop_at: Annotated[float | None, typer.Option("--stop-at", help="closer: certainty that ends the search.")] = None,
    abstain_below: Annotated[
        float | None, typer.Option("--abstain-below", help="Certainty below which the answer counts as none.")
    ] = None,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="closer: search also where the model is shown all pixels already.")
    ] = False,
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens", min=1)] = 64,
    prompt: PromptOption = "method",
    words: Annotated[bool, typer.Option("--words", help="List the answer's words, each with where it looked.")] = False,
    boxes: BoxesFlag = False,
    legend: LegendFlag = False,
    lam: LamOption = 10.0,
    sigma: SigmaOption = 0.5,
    alpha: AlphaOption = 0.5,
    attend_with: AttendWithOption = None,
    fetch: FetchFlag = False,
    device: DeviceOption = None,
    dtype: DtypeOption = "auto",
    out: OutFolder = Path("vea-output"),
    force: ForceFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Ask MODEL about IMAGE, and ask again so that it sees better."""
    given = {"looks": looks, "answers": answers, "show": show, "stop_at": stop_at, "abstain_below": abstain_below}
    options: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    options |= {"min_certainty": certainty_of(min_certainty)} if min_certainty != "profiled" else {}
    options |= {"anyway": True} if anyway else {}
    Way.of(mode, options)  # whose errors come before the model is loaded
    picture, outputs = open_picture(image, fetch, out, force)
    vlm = load_model(model, layers, device, dtype, attend_with, lam=lam, sigma=sigma, alpha=alpha)
    with progress("asking"):
        answer = vlm.ask(picture, question, mode, max_new_tokens=max_new_tokens, prompt=prompt, **options)
    fields: dict[str, Any] = {
        "question": question,
        "prompt": answer.prompt,
        "baseline": answer.baseline,
        "answer": answer.text,
        "certainty": answer.certainty,
        "finished": answer.finished,
        "mode": mode,
        "reason": answer.reason,
        "cost": {"looks": answer.cost.looks, "answers": answer.cost.answers},
    }
    if abstain_below is not None:
        fields["abstained"] = answer.abstained
    if mode not in ("none", "highlight"):
        fields |= tried(answer, picture, outputs)
    found = cast("Evidence | None", answer.evidence)  # none where the tokens have no place and the mode is none
    if found is not None:
        fields |= _shown(found, outputs, boxes, legend, highlighted=mode == "highlight")
    if words:
        fields["words"] = [
            {"word": word.text, "certainty": word.certainty, "box": _first_box(word.evidence)} for word in answer.words
        ]
    report(fields | {"timings": seconds(answer.timings)}, as_json)


def attend(
    image: ImageArgument,
    question: QuestionArgument,
    model: ModelOption,
    layers: LayersOption = "profiled",
    top: Annotated[int, typer.Option("--top", min=0, help="How many patches to list.")] = 5,
    prompt: PromptOption = "method",
    boxes: BoxesFlag = False,
    legend: LegendFlag = False,
    lam: LamOption = 10.0,
    sigma: SigmaOption = 0.5,
    alpha: AlphaOption = 0.5,
    fetch: FetchFlag = False,
    device: DeviceOption = None,
    dtype: DtypeOption = "auto",
    out: OutFolder = Path("vea-output"),
    force: ForceFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Show where MODEL looks in IMAGE before it answers; nothing is generated."""
    picture, outputs = open_picture(image, fetch, out, force)
    vlm = load_model(model, layers, device, dtype, lam=lam, sigma=sigma, alpha=alpha)
    check_top(vlm, picture, question, top)
    with progress("looking"):
        evidence = vlm.attend(picture, question, prompt=prompt)
    patches = [rounded(box) for box in evidence.top_patches(top)]
    fields: dict[str, Any] = {"question": question, "grid": list(evidence.grid)}
    fields |= _shown(evidence, outputs, boxes, legend, highlighted=True)
    report(fields | {"top_patches": patches}, as_json)


def open_picture(image: str, fetch: bool, out: Path, force: bool) -> tuple[Image.Image, Outputs]:
    """The picture, and where its pictures go; both are known to be usable before a model is loaded."""
    address = image.lower().startswith(("data:", "file:", "http://", "https://"))
    if not address and image != "-" and not Path(image).is_file():
        raise typer.BadParameter(f"there is no file {image!r}.", param_hint="IMAGE")
    stem = "picture" if address or image == "-" else Path(image).stem
    outputs = Outputs(out, stem, force)
    return load_image(sys.stdin.buffer if image == "-" else image, fetch=fetch), outputs


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


def certainty_of(text: str) -> float | None:
    """A certainty from the command line, None for ``none``."""
    if text == "none":
        return None
    try:
        return float(text)
    except ValueError as error:
        raise InvalidInputError(f"--min-certainty {text!r}: give a number from 0 to 1, profiled or none.") from error


def check_top(vlm: VLM, picture: Image.Image, question: str, top: int) -> None:
    """Raise InvalidInputError where fewer patches show the picture than are to be listed; the model does not run."""
    asked = one_turn([picture], question)
    layout = vlm.place(vlm.inputs([asked]), [asked])[0][0].layout
    if isinstance(layout, ImageLayout):
        boxes = layout.visible_boxes()
        visible = int((boxes[:, 2] > boxes[:, 0]).sum())
        if top > visible:
            raise InvalidInputError(f"--top {top} is more than the {visible} patches that show this picture.")


def tried(answer: Answer[Any], picture: Image.Image, outputs: Outputs) -> dict[str, Any]:
    """What a mode tried, best first, and a picture of the windows."""
    rated = sorted(answer.candidates, key=lambda one: (one.text is None, -(one.image_mass or 0)))
    fields: dict[str, Any] = {"candidates": answered(rated)}
    if answer.mode == "closer":
        fields["window"] = None if answer.window is None else rounded(answer.window)
        fields["windows"] = outputs.save(drawn_windows(answer, picture), "windows")
    return fields


def answered(candidates: Sequence[Candidate]) -> list[dict[str, Any]]:
    """Those that were answered, in their order, ready for JSON."""
    return [
        {
            "view": one.view,
            "answer": one.text,
            "certainty": one.certainty,
            "image_mass": one.image_mass,
            "chosen": one.chosen,
        }
        for one in candidates
        if one.text is not None
    ]


def drawn_windows(answer: Answer[Any], picture: Image.Image) -> Image.Image:
    """The picture with the windows that were looked at, answered and taken."""
    windows = answer.candidates[1:]
    asked = [one.box for one in windows if one.text is not None]
    return draw_windows(picture, [one.box for one in windows], asked, answer.window)


def _shown(evidence: Evidence, outputs: Outputs, boxes: bool, legend: bool, highlighted: bool) -> dict[str, Any]:
    """Layers, places and the written pictures."""
    point = evidence.point()
    fields: dict[str, Any] = {
        "layers": list(evidence.layers),
        "point": None if point is None else rounded(point),
        "boxes": [{"box": rounded(one.box), "share": round(one.share, 3)} for one in evidence.boxes()],
        "overlay": outputs.save(evidence.overlay(boxes=boxes, legend=legend), "overlay"),
    }
    if highlighted:
        fields["highlighted"] = outputs.save(evidence.highlight(), "highlighted")
    return fields


def _first_box(evidence: Evidence) -> list[float] | None:
    found = evidence.boxes(most=1)
    return rounded(found[0].box) if found else None
