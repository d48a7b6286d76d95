"""What the commands share: progress on stderr, results on stdout, pictures in a folder."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import Annotated, Any, TextIO

import transformers
import typer
from PIL import Image
from rich.console import Console
from rich.progress import Progress
from rich.text import Text

from vea_sdk.capture.layers import LayerSelection
from vea_sdk.printable import printable
from vea_sdk.profiles import Profile

JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
OutFolder = Annotated[Path, typer.Option("--out", help="Folder for what is written; made if absent.")]
ForceFlag = Annotated[bool, typer.Option("--force", help="Write over files of the same name instead of numbering.")]


@contextmanager
def progress(text: str) -> Iterator[None]:
    """Show what is being done on stderr; a spinner on a terminal, nothing elsewhere."""
    console = Console(stderr=True)
    if not console.is_terminal:
        transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        yield
        return
    with console.status(Text(printable(text))):
        yield


@contextmanager
def progress_bar(text: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on stderr, none where that is no terminal; gives what to call with the number of steps just done."""
    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(text, total=total)
        yield lambda steps: bar.advance(task, steps)


def report(fields: Mapping[str, Any], as_json: bool) -> None:
    """Print results on stdout: one JSON object, or one line per field."""
    if as_json:
        json.dump(fields, sys.stdout, indent=2)
        sys.stdout.write("\n")
        return
    width = max(len(name) for name in fields)
    for name, value in fields.items():
        first, *others = _lines(name, value)
        say(f"{name:<{width}}  {first}")
        for line in others:
            say(f"{'':<{width}}  {line}")


def say(text: object, file: TextIO | None = None) -> None:
    """Print lines of text. Models, requests and names of files have a part in them: what a terminal would act on is
    shown as an escape instead."""
    for line in str(text).rstrip("\n").split("\n"):
        print(printable(line), file=file)


_KINDS = ("overlay", "highlighted", "together")


class Outputs:
    """Files of one run in one folder, which is made at once, so that a run fails before it computes.

    Where a file of the run's name is there, all of its files are numbered: ``receipt-overlay.png``, then
    ``receipt-2-overlay.png``. With ``force`` they are written over.
    """

    def __init__(self, folder: Path, stem: str, force: bool = False) -> None:
        check_folder(folder)
        self._folder = folder
        self._stem, number = stem, 1
        while not force and any(self._path(kind).exists() for kind in _KINDS):
            number += 1
            self._stem = f"{stem}-{number}"

    def _path(self, kind: str) -> Path:
        return self._folder / f"{self._stem}-{kind}.png"

    def save(self, picture: Image.Image, kind: str) -> str:
        """Write a picture as PNG and return its path."""
        try:
            picture.save(self._path(kind))
        except OSError as error:
            raise typer.BadParameter(f"cannot write to {str(self._folder)!r}: {error}", param_hint="--out") from error
        return str(self._path(kind))


def check_folder(folder: Path, option: str = "--out") -> None:
    """Make the folder of results, and see that files can be written there, before anything is computed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise typer.BadParameter(f"cannot write to {str(folder)!r}: {error}", param_hint=option) from error


def parse_layers(text: str) -> LayerSelection:
    """``profiled``, ``all``, numbers ``18,22,24``, a depth span ``0.5:1.0``, or a profile's file."""
    if text.endswith(".json"):
        return Profile.load(text)
    try:
        if ":" in text:
            low, high = text.split(":")
            return (float(low), float(high))
        if text not in ("all", "profiled"):
            return [int(number) for number in text.split(",")]
    except ValueError as error:
        raise typer.BadParameter(
            f"{text!r} is no layer selection: use profiled, all, numbers such as 18,22,24, a depth span 0.5:1.0, or a "
            "profile's .json.",
            param_hint="--layers",
        ) from error
    return text


def rounded(box: Sequence[float]) -> list[float]:
    """A box or point to a tenth of a pixel."""
    return [round(float(edge), 1) for edge in box]


def seconds(timings: Mapping[str, float]) -> dict[str, float]:
    """Timings to the millisecond."""
    return {name: round(value, 3) for name, value in timings.items()}


_BOXES = ("box", "boxes", "top_patches")
"""Names of values that are boxes, or lists of them."""


def _lines(name: str, value: Any) -> list[str]:
    """A value as people read it; boxes, words and the lines of a text take a line each."""
    if isinstance(value, list) and value and isinstance(value[0], Mapping | list | tuple):
        return [printable(_item(name, one)) for one in value]
    return value.split("\n") if isinstance(value, str) else [printable(_item(name, value))]


def _item(name: str, value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{part} {_item(part, inside)}" for part, inside in value.items())
    if isinstance(value, list | tuple):
        if name in _BOXES and len(value) == 4:
            x0, y0, x1, y1 = value
            return f"({x0:g}, {y0:g}) to ({x1:g}, {y1:g})"
        return ", ".join(_item(name, part) for part in value)
    return f"{value:.3f}" if isinstance(value, float) else str(value)
