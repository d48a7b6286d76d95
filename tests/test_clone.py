"""Python that is started inside a clone imports the clone's package, which holds no kernels."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import vea_sdk as vea
from vea_sdk import _native

extension = _native.extension()
pytestmark = pytest.mark.skipif(extension is None, reason="needs the compiled extension")

CODE = """
import warnings
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    import vea_sdk as vea
    assert not said, "importing must not warn"
    import torch
    query, key = torch.ones(1, 2, 1, 8), torch.ones(1, 2, 5, 8)
    for _ in range(2):
        print(round(float(vea.ops.image_attention(query, key, torch.arange(2)[None]).sum()), 6))
print(vea.__file__)
print(vea.build_info()["path"])
print([str(one.message) for one in said if "vea_sdk comes from" in str(one.message)])
"""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The package without its kernels, beside its sources."""
    folder = tmp_path / "clone"
    ignored = shutil.ignore_patterns("*.so", "__pycache__", "checkpoint")
    shutil.copytree(Path(vea.__file__).parent, folder / "vea_sdk", ignore=ignored)
    (folder / "csrc").mkdir()
    return folder


def installed(folder: Path, version: str, functions: str | None = None) -> Path:
    """A package that pip would have put there, as far as its kernels go."""
    (folder / "vea_sdk").mkdir(parents=True)
    stub = Path(vea.__file__).with_name("_C.pyi").read_text()
    (folder / "vea_sdk" / "_C.pyi").write_text(stub if functions is None else functions)
    assert extension is not None
    kernels = folder / "vea_sdk" / Path(extension.__file__).name
    shutil.copy(extension.__file__, kernels)
    (folder / f"vea_sdk-{version}.dist-info").mkdir()
    (folder / f"vea_sdk-{version}.dist-info" / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: vea-sdk\nVersion: {version}\n"
    )
    return kernels


def started(clone: Path, *others: Path) -> list[str]:
    """What CODE prints in the clone, with other folders on the path, and no installed package but theirs."""
    code = (
        "import sys\n"
        "sys.meta_path[:] = [one for one in sys.meta_path if 'editable' not in repr(one).lower()]\n"
        f"sys.path[:0] = {[str(clone), *map(str, others)]}\n"
        "import importlib.metadata as metadata\n"
        "real = metadata.distributions\n"
        f"metadata.distributions = lambda **given: real(path={list(map(str, others))}, **given)\n"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code + CODE], capture_output=True, text=True, cwd=clone)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_the_installed_kernels_serve(clone: Path, tmp_path: Path) -> None:
    kernels = installed(tmp_path / "site", vea.__version__)
    first, second, package, path, warned = started(clone, tmp_path / "site")
    assert (first, second) == ("0.4", "0.4")
    assert Path(package).is_relative_to(clone)
    assert Path(path) == kernels
    assert warned == "[]"


@pytest.mark.parametrize("found", [None, ("0.0.1", None), (vea.__version__, "def other() -> None: ...")])
def test_without_them_it_says_so_once(clone: Path, tmp_path: Path, found: tuple[str, str | None] | None) -> None:
    """None is installed, or one of another release, or of other sources."""
    others = []
    if found is not None:
        installed(tmp_path / "site", *found)
        others = [tmp_path / "site"]
    first, second, _, path, warned = started(clone, *others)
    assert (first, second) == ("0.4", "0.4")  # plain torch
    assert path == "None"
    assert warned.count("vea_sdk comes from its sources") == 1
    assert "pip install -e ." in warned
