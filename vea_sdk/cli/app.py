"""The command line: exit 0 fine, 1 failed, 2 wrong usage."""

from __future__ import annotations

import sys

import typer

from vea_sdk.cli.analyze import analyze
from vea_sdk.cli.ask import ask, attend
from vea_sdk.cli.bench import bench
from vea_sdk.cli.demo import demo
from vea_sdk.cli.doctor import doctor
from vea_sdk.cli.eval import evaluate
from vea_sdk.cli.profile import profile
from vea_sdk.cli.watch import watch
from vea_sdk.errors import VeaError

app = typer.Typer(
    name="vea",
    help="Where did the vision-language model look? Show it, and ask again.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (demo, ask, attend, profile, analyze, doctor, bench, watch):
    app.command()(command)
app.command("eval")(evaluate)


def main() -> None:
    """Run the command line; errors of this package become one line on stderr."""
    try:
        app()
    except VeaError as error:
        print(f"vea: {error}", file=sys.stderr)
        sys.exit(1)
