"""``vea watch``: the records of a monitor, live."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live

from vea_sdk.cli.output import JsonFlag, progress, report, say
from vea_sdk.cli.watch_screen import Follower, screen
from vea_sdk.errors import InvalidInputError
from vea_sdk.printable import printable

FileArgument = Annotated[Path, typer.Argument(metavar="FILE.jsonl", help="What a JsonLinesSink writes.")]
FollowFlag = Annotated[
    bool | None,
    typer.Option("--follow/--once", help="Go on as the file grows, or read it once; by default follow on a terminal."),
]


def watch(
    file: FileArgument,
    follow: FollowFlag = None,
    window: Annotated[
        int, typer.Option("--window", min=20, help="Values per statistic in quantiles and drift.")
    ] = 1000,
    rows: Annotated[int, typer.Option("--rows", min=1, help="Records shown.")] = 10,
    rotated: Annotated[bool, typer.Option("--rotated", help="Begin with the oldest of FILE.jsonl.1, .2, ….")] = False,
    interval: Annotated[float, typer.Option("--interval", min=0.05, help="Seconds between two looks.")] = 0.5,
    as_json: JsonFlag = False,
) -> None:
    """Show records as they come, quantiles of their statistics, and alerts.

    With --json one object in the end; with --json --follow one line per look that found something.
    """
    if follow is None:
        follow = not as_json and sys.stdout.isatty()
    if file.is_dir() or not (follow or file.exists()):
        raise typer.BadParameter(f"there is no file {str(file)!r}.", param_hint="FILE.jsonl")
    follower = Follower(file, window, rows, rotated)
    try:
        with progress(f"reading {file}"):
            follower.read()
        if follow:
            _follow(follower, interval, as_json)
        else:
            _once(follower, as_json)
    except KeyboardInterrupt:
        pass  # the usual end of following
    finally:
        follower.tail.close()


def _once(follower: Follower, as_json: bool) -> None:
    for line in follower.tail.wrong:
        say(f"vea: {printable(line)}", sys.stderr)
    if not follower.last:
        raise InvalidInputError(f"{str(follower.tail.path)!r} holds no record; a JsonLinesSink writes them.")
    if as_json:
        report(follower.summary(), as_json)
    else:
        Console().print(screen(follower))


def _follow(follower: Follower, interval: float, as_json: bool) -> None:
    if as_json:
        news = True
        while True:
            if news:
                print(json.dumps(follower.summary()), flush=True)
            time.sleep(interval)
            news = follower.read()
    with Live(screen(follower), console=Console(), auto_refresh=False) as live:
        while True:
            time.sleep(interval)
            follower.read()
            live.update(screen(follower), refresh=True)
