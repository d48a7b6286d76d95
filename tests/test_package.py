"""What importing does, and that every name is reached by every road that Python has to it."""

from __future__ import annotations

import copy
import functools
import importlib
import importlib.util
import inspect
import logging.config
import os
import pickle
import pkgutil
import pydoc
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import vea_sdk as vea

HOME = Path(vea.__file__).parents[1]


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


def test_importing_leaves_for_later_what_only_some_need() -> None:
    code = """
import sys, vea_sdk
later = ("PIL", "vea_sdk.evidence", "vea_sdk.pipeline", "vea_sdk.monitor.attached", "vea_sdk.monitor.sinks")
print([name for name in later if name in sys.modules])
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


def modules() -> list[str]:
    found = pkgutil.walk_packages(vea.__path__, "vea_sdk.")
    return sorted(one.name for one in found if not one.name.endswith(("._C", ".__main__")))


def test_no_module_hides_behind_a_function_of_its_name() -> None:
    """``import a.b as c`` takes the attribute b of a; so do ``mock.patch`` and whatever else resolves dotted names."""
    loaded = {name: importlib.import_module(name) for name in modules()}
    assert len(loaded) > 200
    hidden = [
        name
        for name, module in loaded.items()
        if getattr(sys.modules[name.rpartition(".")[0]], name.rpartition(".")[2]) is not module
    ]
    assert hidden == []


CALLED = [("vea_sdk.capture", "vea_sdk.capture.session"), ("vea_sdk.monitor", "vea_sdk.monitor.handle")]
"""Packages that are called, and where the function is written."""


def function_of(package: str, where: str) -> Any:
    return getattr(importlib.import_module(where), package.rpartition(".")[2])


FORMS = [
    ("import vea_sdk.monitor.sinks as found", "found", "vea_sdk.monitor.sinks"),
    ("import vea_sdk.monitor.sinks", "vea_sdk.monitor.sinks", "vea_sdk.monitor.sinks"),
    ("import vea_sdk", "vea_sdk.monitor.sinks", "vea_sdk.monitor.sinks"),
    ("from vea_sdk.monitor import sinks", "sinks", "vea_sdk.monitor.sinks"),
    ("from vea_sdk import monitor", "monitor.sinks", "vea_sdk.monitor.sinks"),
    ("import importlib", "importlib.import_module('vea_sdk.monitor.sinks')", "vea_sdk.monitor.sinks"),
    ("import pkgutil", "pkgutil.resolve_name('vea_sdk.monitor.sinks')", "vea_sdk.monitor.sinks"),
    ("import pydoc", "pydoc.locate('vea_sdk.monitor.sinks')", "vea_sdk.monitor.sinks"),
    ("import vea_sdk.capture.layers as found", "found", "vea_sdk.capture.layers"),
    ("import vea_sdk.capture.layers", "vea_sdk.capture.layers", "vea_sdk.capture.layers"),
    ("from vea_sdk.capture import layers", "layers", "vea_sdk.capture.layers"),
    ("import vea_sdk.evidence.smoothing as found", "found", "vea_sdk.evidence.smoothing"),
    ("import vea_sdk.ops.image_attention_op as found", "found", "vea_sdk.ops.image_attention_op"),
]
"""What is imported first, an expression after it, and the module that it is."""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_every_form_of_import_gives_the_module() -> None:
    """Each where nothing of the package has been imported; and none takes the functions away."""
    code = f"""
import os, sys, torch
for first, reached, name in {FORMS!r}:
    child = os.fork()
    if not child:
        exec(first)
        assert eval(reached) is sys.modules[name], reached
        import vea_sdk as vea
        functions = (vea.monitor, vea.capture, vea.evidence.smooth, vea.evidence.overlay, vea.ops.image_attention)
        assert all(callable(one) for one in functions)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), first, reached)
"""
    assert python(code).splitlines() == [f"0 {first} {reached}" for first, reached, _ in FORMS]


def test_logging_is_configured_by_dotted_names() -> None:
    from vea_sdk.monitor.sinks import CallbackSink, LoggingSink

    settings: dict[str, Any] = {"()": "vea_sdk.monitor.sinks.LoggingSink"}
    made = logging.config.DictConfigurator({"version": 1, "handlers": {"vea": settings}}).configure_handler(settings)
    assert isinstance(made, LoggingSink)
    resolved = logging.config.BaseConfigurator({}).resolve("vea_sdk.monitor.sinks.callback.CallbackSink")
    assert resolved is CallbackSink


@pytest.mark.parametrize(
    "name",
    [
        "vea_sdk.monitor.sinks.Sink",
        "vea_sdk.monitor.sinks.log.LoggingSink",
        "vea_sdk.monitor.handle.adapter_for",
        "vea_sdk.monitor",
        "vea_sdk.capture.session.Session",
        "vea_sdk.capture",
        "vea_sdk.evidence.smooth",
        "vea_sdk.evidence.smoothing.expand",
        "vea_sdk.profiles.find",
    ],
)
def test_names_are_patched_by_their_dotted_path(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    home, _, last = name.rpartition(".")
    module, marker = importlib.import_module(home), object()
    before = getattr(module, last)
    with monkeypatch.context() as patched:
        patched.setattr(name, marker)
        assert getattr(sys.modules[home], last) is marker
    assert getattr(module, last) is before


@pytest.mark.parametrize(("package", "where"), CALLED)
def test_a_called_package_shows_the_function_that_it_is(package: str, where: str) -> None:
    called, function = pkgutil.resolve_name(package), function_of(package, where)
    assert inspect.ismodule(called)
    assert inspect.signature(called) == inspect.signature(function)
    assert list(inspect.signature(functools.partial(called, object())).parameters) == (
        list(inspect.signature(functools.partial(function, object())).parameters)
    )
    shown = pydoc.plain(pydoc.render_doc(called))
    assert f"{package.rpartition('.')[2]}(model: 'nn.Module'" in shown
    assert function.__doc__.splitlines()[0] in shown


@pytest.mark.parametrize(("package", "where"), CALLED)
def test_a_called_package_runs_that_function(package: str, where: str) -> None:
    """With what it is given, as the function says it: its errors come from the same line, with no frame between."""
    called, function = pkgutil.resolve_name(package), function_of(package, where)
    told = []
    for one in (called, function):
        with pytest.raises(vea.VeaError, match="No adapter serves int") as raised:
            one(3)
        told.append((str(raised.value), [str(entry.frame.code.name) for entry in raised.traceback[1:]]))
    assert told[0] == told[1]
    with pytest.raises(TypeError, match=r"unexpected keyword argument 'layerz'"):
        called(3, layerz="all")


PICKLED = [pickle.dumps(vea.monitor, protocol) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_functions_and_called_packages_are_pickled_by_name(protocol: int) -> None:
    named = [vea.monitor, vea.capture, vea.capture.capture, vea.evidence.smooth, vea.evidence.overlay]
    named += [vea.evidence.denoise, vea.evidence.highlight, vea.evidence.normalize, vea.ops.topk_mask]
    for one in named:
        assert pickle.loads(pickle.dumps(one, protocol)) is one
        assert copy.deepcopy(one) is one


def test_a_called_package_is_unpickled_elsewhere() -> None:
    code = f"import pickle; print([pickle.loads(one).__name__ for one in {PICKLED!r}])"
    assert python(code) == f"{['vea_sdk.monitor'] * len(PICKLED)}\n"


def test_a_called_package_is_one_after_a_reload() -> None:
    code = """
import importlib, vea_sdk as vea
assert importlib.reload(vea.monitor) is vea.monitor
assert importlib.reload(vea.capture) is vea.capture
print(callable(vea.monitor), callable(vea.capture), importlib.reload(vea) is vea)
"""
    assert python(code) == "True True True\n"


USED = """
import vea_sdk as vea
import vea_sdk.monitor.sinks as sinks
from torch import nn
from vea_sdk import capture, monitor
from vea_sdk.capture import Session
from vea_sdk.monitor import Monitor, Record


def watched(model: nn.Module, seen: list[Record]) -> Monitor:
    handle: Monitor = vea.monitor(model, sample_rate=0.5, sinks=[sinks.CallbackSink(seen.append)])
    reveal_type(vea.monitor(model))
    reveal_type(monitor(model, layers="all"))
    reveal_type(vea.monitor.Record)
    vea.monitor.sinks.LoggingSink()
    return handle


def captured(model: nn.Module) -> Session:
    reveal_type(vea.capture(model, [1, 2], top_k=3))
    reveal_type(capture(model))
    reveal_type(vea.capture.Session)
    reveal_type(vea.evidence.smooth)
    return vea.capture.capture(model)
"""
MISUSED = """
import vea_sdk as vea
from torch import nn


def wrong(model: nn.Module) -> None:
    vea.monitor(model, 0.5)
    vea.monitor(model, sample_rate="often")
    vea.capture(model, layerz="all")
    vea.capture(model, queries="none")
"""


@pytest.mark.skipif(importlib.util.find_spec("mypy") is None, reason="needs mypy")
def test_called_packages_are_typed(tmp_path: Path) -> None:
    """Of whoever uses them under ``--strict``: the function's whole signature and the package's attributes."""
    (tmp_path / "used.py").write_text(USED)
    (tmp_path / "misused.py").write_text(MISUSED)
    (tmp_path / "mypy.ini").write_text(
        "[mypy]\nstrict = True\n[mypy-transformers.*]\nfollow_imports = skip\n"
        "[mypy-vea_sdk.*]\nfollow_imports = silent\n"
    )

    def told(file: str) -> list[str]:
        environment = os.environ | ({} if HOME.name == "site-packages" else {"MYPYPATH": str(HOME)})
        command = [sys.executable, "-P", "-m", "mypy", "--no-pretty", file]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        return done.stdout.splitlines()

    *revealed, last = told("used.py")
    assert last.startswith("Success"), revealed
    assert [line.partition('type is "')[2].rstrip('"') for line in revealed] == [
        "vea_sdk.monitor.attached.Monitor",
        "vea_sdk.monitor.attached.Monitor",
        revealed[2].partition('type is "')[2].rstrip('"'),
        "vea_sdk.capture.session.Session",
        "vea_sdk.capture.session.Session",
        revealed[5].partition('type is "')[2].rstrip('"'),
        revealed[6].partition('type is "')[2].rstrip('"'),
    ]
    assert revealed[2].endswith('-> vea_sdk.monitor.record.Record"')
    assert revealed[5].endswith('-> vea_sdk.capture.session.Session"')
    assert "image_hw" in revealed[6]
    *errors, last = told("misused.py")
    assert [int(line.split(":")[1]) for line in errors] == [7, 8, 9, 10], errors
    assert last.startswith("Found 4 errors")
