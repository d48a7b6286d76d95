"""``vea doctor``: what this installation can do, and why not."""

from __future__ import annotations

import platform
from importlib import metadata
from typing import Any

from vea_sdk import adapters
from vea_sdk._native import build_info
from vea_sdk.cli.output import JsonFlag, report


def doctor(as_json: JsonFlag = False) -> None:
    """Show versions, the state of the compiled kernels, devices, and the architectures served."""
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
