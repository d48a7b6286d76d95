"""The command line: exit 0 fine, 1 failed, 2 wrong usage."""

from __future__ import annotations

import io
import sys
import warnings
from typing import Annotated

import typer

from vea_sdk._version import __version__
from vea_sdk.cli.analyze import analyze
from vea_sdk.cli.ask import ask, attend
from vea_sdk.cli.bench import bench
from vea_sdk.cli.demo import demo
from vea_sdk.cli.doctor import doctor
from vea_sdk.cli.eval import evaluate
from vea_sdk.cli.meanings import OUTPUT
from vea_sdk.cli.output import say
from vea_sdk.cli.profile import profile
from vea_sdk.cli.watch import watch
from vea_sdk.errors import VeaError

app = typer.Typer(
    name="vea",
    help="Where did the vision-language model look? Show it, and ask again.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
for command in (demo, ask, attend, profile, analyze, doctor, bench, watch):
    app.command(epilog=OUTPUT[command.__name__])(command)
app.command("eval", epilog=OUTPUT["eval"])(evaluate)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"vea-sdk {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Where did the vision-language model look? Show it, and ask again."""


def main() -> None:
    """Run the command line; errors of this package and warnings become one line on stderr."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a letter that the terminal lacks is escaped
            stream.reconfigure(errors="backslashreplace")
    warnings.showwarning = _warn
    try:
        app()
    except VeaError as error:
        say(f"vea: {error}", sys.stderr)
        sys.exit(1)


def _warn(message: Warning | str, *_: object, **__: object) -> None:
    say(f"warning: {' '.join(str(message).split())}", sys.stderr)
