"""``vea doctor``: what this installation can do, and why not."""

from __future__ import annotations

import platform
from importlib import metadata
from typing import Annotated, Any

import typer

from vea_sdk import adapters
from vea_sdk._native import build_info
from vea_sdk.adapters import support
from vea_sdk.cli.output import JsonFlag, report

FamiliesFlag = Annotated[
    bool, typer.Option("--families", help="The support table: what was tested on each architecture, and what it found.")
]


def doctor(families: FamiliesFlag = False, as_json: JsonFlag = False) -> None:
    """Show versions, the state of the compiled kernels, devices, and the architectures served."""
    if families:
        if as_json:
            report(support.table(), as_json)
        else:
            print(support.markdown(), end="")
        return
    import torch

    fields: dict[str, Any] = {"python": platform.python_version(), "platform": platform.platform()}
    for name in ("vea-sdk", "torch", "transformers", "numpy", "pillow"):
        try:
            fields[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            fields[name] = "not installed"
    fields["threads"] = torch.get_num_threads()
    fields["cuda_devices"] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    fields |= build_info()
    fields["architectures"] = sorted(adapters.families())
    report(fields, as_json)
