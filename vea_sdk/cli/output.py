"""What the commands share: progress on stderr, results on stdout, pictures in a folder."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import Annotated, Any

import transformers
import typer
from PIL import Image
from rich.console import Console
from rich.progress import Progress

from vea_sdk.capture.layers import LayerSelection
from vea_sdk.profiles import Profile

JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
OutFolder = Annotated[Path, typer.Option("--out", help="Folder for what is written; made if absent.")]


@contextmanager
def progress(text: str) -> Iterator[None]:
    """Show what is being done on stderr; a spinner on a terminal, nothing elsewhere."""
    console = Console(stderr=True)
    if not console.is_terminal:
        transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        yield
        return
    with console.status(text):
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
        print(f"{name:<{width}}  {_readable(value)}")


def save_picture(picture: Image.Image, folder: Path, name: str) -> str:
    """Write a PNG and return its path."""
    check_folder(folder)
    path = folder / name
    try:
        picture.save(path)
    except OSError as error:
        raise typer.BadParameter(f"cannot write to {folder}: {error}", param_hint="--out") from error
    return str(path)


def check_folder(folder: Path) -> None:
    """Make the folder of results, and see that files can be written there, before anything is computed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise typer.BadParameter(f"cannot write to {folder}: {error}", param_hint="--out") from error


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


def seconds(timings: Mapping[str, float]) -> dict[str, float]:
    """Timings to the millisecond."""
    return {name: round(value, 3) for name, value in timings.items()}


def _readable(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_readable(part)}" for name, part in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_readable(part) for part in value)
    return f"{value:.3f}" if isinstance(value, float) else str(value)
