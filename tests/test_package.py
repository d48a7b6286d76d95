"""What importing does, and that imports point down the corridor only."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def python(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd="/", env={**os.environ, **environment}
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_importing_prints_patches_and_loads_nothing() -> None:
    code = """
import sys, torch
state = (torch.nn.Module.__call__, torch.nn.functional.scaled_dot_product_attention)
import vea_sdk
assert state == (torch.nn.Module.__call__, torch.nn.functional.scaled_dot_product_attention)
assert not torch.cuda.is_initialized()
heavy = {"transformers", "matplotlib", "scipy", "sklearn", "typer"}
print(sorted(heavy & {name.split(".")[0] for name in sys.modules}))
"""
    assert python(code) == "[]\n"


def test_importing_is_quick_beyond_torch(tmp_path: Path) -> None:
    """At most 50 ms of processor time beyond torch and numpy; the best of five, the first of which compiles."""
    code = """
import time, torch, numpy
started = time.process_time()
import vea_sdk
print(time.process_time() - started)
"""
    bytecode = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(tmp_path)}
    assert min(float(python(code, **bytecode)) for _ in range(5)) <= 0.05


def test_every_public_name_exists() -> None:
    code = """
import vea_sdk as vea
missing = [name for name in vea.__all__ if not hasattr(vea, name)]
assert not missing, missing
assert callable(vea.capture)
"""
    python(code)
