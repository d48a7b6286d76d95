"""``vea bench``: what capture costs on this machine, in less than a minute."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from vea_sdk.cli.output import JsonFlag, progress_bar, report, say


def bench(
    device: Annotated[
        str | None, typer.Option("--device", help="cpu or cuda; by default both where there is a GPU.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Measure the kernel against torch and memory, and what capture adds to a model's generate()."""
    import torch

    if device not in (None, "cpu", "cuda"):
        raise typer.BadParameter(f"{device!r} is unknown: cpu or cuda.", param_hint="--device")
    if device == "cuda" and not torch.cuda.is_available():
        raise typer.BadParameter("torch sees no CUDA device here; use cpu.", param_hint="--device")
    from vea_sdk.benchmark import quick

    devices = [device] if device else ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    rows = []
    with progress_bar("measuring", quick.STEPS * len(devices)) as advance:
        for name in devices:
            for group in quick.measure(name):
                rows += group
                advance(1)
    if as_json:
        report({"environment": rows[0].environment, "rows": [asdict(one) for one in rows]}, as_json)
        return
    report({name: str(value) for name, value in rows[0].environment.items()}, as_json)
    for one in rows:
        say(one)
