"""Whether the tests notice faults: the faults listed here are put into a copy of the package, one at a time.

    python -m tests.mutants.run                                           # all of them
    python -m tests.mutants.run --python --minutes 4 --seed "$(git rev-parse HEAD)"   # as many as fit, as in .ci/run
    python -m tests.mutants.run ring statistics                           # those whose name holds one of these words

A fault stands in one of the files ``*.toml`` beside this one: its name, the file, the ``old`` text, the ``new`` one,
and the tests of which one must fail. Texts are replaced, not diffs applied, since a diff moves with every line around
it: a fault applies for as long as its old text stands once in its file.

The named tests run twice, each time in a process of its own: they must pass on the copy as it is, and then one must
fail. A crash counts as a failure, and so does taking far longer. Processes are forked from one that has loaded torch
and Transformers, which would else take most of the time. Faults in C++ share one build folder, in which only what they
change is compiled again.

Prints a line for each and the share that was noticed. Exits with 1 where that is below 95%, where a fault does not
apply any more, or where its tests do not pass without it.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue

from rich.console import Console
from rich.progress import Progress

ROOT = Path(__file__).parents[2]
COPIED = ("vea_sdk", "tests", "csrc", "setup.py", "pyproject.toml", "README.md", "LICENSE")
PLUGINS = ("pytest", "_hypothesis_pytestplugin", "hypothesis.strategies", "pytest_benchmark.plugin", "rich.progress")
PRELOADED = (
    *PLUGINS,
    "scipy.stats",
    "torch",
    "transformers",
    "transformers.generation.utils",
    "transformers.models.auto.modeling_auto",
    "transformers.models.llava.modeling_llava",
    "transformers.models.qwen2_vl.processing_qwen2_vl",
    "transformers.models.internvl.processing_internvl",
)
LEAST = 0.95
PASSED, FAILED = 0, 1  # pytest's; 2 to 5 are tests that could not be run
LIMIT = 120.0  # seconds that tests may take without a fault
PATIENCE = 20.0  # seconds that they may take with one, and three times what they took without


class UnusableError(Exception):
    """A fault that says nothing about the tests."""


@dataclass(frozen=True)
class Mutant:
    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    @property
    def native(self) -> bool:
        return self.file.startswith("csrc/")

    def applied(self, text: str) -> str:
        if (found := text.count(self.old)) != 1:
            raise UnusableError(f"does not apply: its old text stands {found} times in {self.file}")
        return text.replace(self.old, self.new)


def mutants(folder: Path) -> list[Mutant]:
    """Of all lists in a folder. Raises UnusableError for one that is incomplete or has another's name."""
    found: dict[str, Mutant] = {}
    for path in sorted(folder.glob("*.toml")):
        for fields in tomllib.loads(path.read_text(encoding="utf-8"))["mutant"]:
            one = Mutant(**{**fields, "tests": tuple(fields["tests"])})
            if one.name in found or one.old == one.new or not one.tests:
                raise UnusableError(f"{path.name}: {one.name!r} needs a name of its own, a change, and tests")
            found[one.name] = one
    return list(found.values())


def in_order(chosen: Iterable[Mutant], seed: str) -> list[Mutant]:
    """Any two seeds begin with others."""
    return sorted(chosen, key=lambda one: hashlib.sha256((seed + one.name).encode()).digest())


class Copy:
    """The package and its tests in a folder, where they may be spoiled."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.folder = folder
        self._passed: dict[tuple[str, ...], float] = {}  # seconds that tests took
        for name in COPIED:
            if (root / name).is_dir():
                shutil.copytree(root / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
            elif (root / name).exists():
                shutil.copy(root / name, folder / name)
        if not any((folder / "vea_sdk").glob("_C*.so")):
            shutil.copy(_extension(), folder / "vea_sdk")
        # Checked by hash: a fault may have the size and the second of what was there before.
        command = [sys.executable, "-m", "compileall", "-q", "--invalidation-mode", "checked-hash", "vea_sdk"]
        subprocess.run(command, cwd=folder, check=True)

    def build(self) -> None:
        command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
        done = subprocess.run(
            command, cwd=self.folder, env={**os.environ, "VEA_CUDA": "0"}, capture_output=True, text=True
        )
        if done.returncode:
            raise UnusableError(f"does not compile:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")

    def check(self, tests: tuple[str, ...]) -> None:
        """Raises UnusableError where the tests do not pass on the copy as it is."""
        if tests not in self._passed:
            began = time.monotonic()
            code, output = self._run(tests, LIMIT)
            if code != PASSED:
                raise UnusableError(f"its tests do not pass without it ({code}):\n{output}")
            self._passed[tests] = time.monotonic() - began

    def judge(self, mutant: Mutant) -> bool:
        """Whether the tests notice the fault."""
        path = self.folder / mutant.file
        before = path.read_text(encoding="utf-8")
        self.check(mutant.tests)
        path.write_text(mutant.applied(before), encoding="utf-8")
        try:
            if mutant.native:
                self.build()
            code, output = self._run(mutant.tests, PATIENCE + 3 * self._passed[mutant.tests])
        finally:
            path.write_text(before, encoding="utf-8")
        if code is not None and code > FAILED:
            raise UnusableError(f"its tests could not be run ({code}):\n{output}")
        return code != PASSED

    def _run(self, tests: tuple[str, ...], limit: float) -> tuple[int | None, str]:
        """pytest's exit code, negative after a crash, None after the time limit; and the end of what it printed."""
        log = self.folder / "log"
        process = multiprocessing.get_context("forkserver").Process(target=_pytest, args=(self.folder, log, tests))
        process.start()
        process.join(limit)
        if process.exitcode is None:
            process.kill()
            process.join()
            return None, "took too long"
        return process.exitcode, log.read_text(errors="replace")[-2000:]


def _extension() -> Path:
    from vea_sdk import _native

    path = _native.build_info()["path"]
    if path is None:
        raise UnusableError("no compiled extension is installed: pip install -e .")
    return Path(path)


def _pytest(folder: Path, log: Path, tests: tuple[str, ...]) -> None:
    """In a process of its own: run tests of a copy."""
    os.chdir(folder)
    with log.open("w") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    sys.path.insert(0, str(folder))
    os.environ["PYTHONPATH"] = str(folder)  # of those that tests start
    spec = importlib.util.find_spec("vea_sdk")
    if "vea_sdk" in sys.modules or spec is None or not Path(str(spec.origin)).is_relative_to(folder):
        raise ImportError(f"tests would import {spec}, not the copy in {folder}")
    import pytest

    code = pytest.main(["-x", "-q", "-p", "no:cacheprovider", "--assert=plain", *tests])
    sys.stdout.flush()
    os._exit(code)  # threads of a faulty package may never end


@dataclass(frozen=True)
class Verdict:
    mutant: Mutant
    noticed: bool
    problem: str | None = None

    def __str__(self) -> str:
        word = self.problem or ("killed" if self.noticed else "SURVIVED")
        return f"{self.mutant.name}: {word}"


def verdict(mutant: Mutant, judge: Callable[[Mutant], bool]) -> Verdict:
    try:
        return Verdict(mutant, judge(mutant))
    except UnusableError as error:
        return Verdict(mutant, False, str(error))


def in_python(root: Path, chosen: Sequence[Mutant], jobs: int, until: float) -> Iterator[Verdict]:
    """As many as can be begun before ``until``, ``jobs`` at a time, each with a copy of its own."""
    waiting: SimpleQueue[Mutant] = SimpleQueue()
    for mutant in chosen:
        waiting.put(mutant)
    found: SimpleQueue[Verdict | None] = SimpleQueue()

    def work() -> None:
        try:
            with tempfile.TemporaryDirectory() as folder:
                copy = Copy(root, Path(folder).resolve())
                while time.monotonic() < until:
                    found.put(verdict(waiting.get_nowait(), copy.judge))
        except Empty:
            pass
        finally:
            found.put(None)

    with ThreadPoolExecutor(jobs) as pool:
        workers = [pool.submit(work) for _ in range(jobs)]
        running = jobs
        while running:
            if (one := found.get()) is None:
                running -= 1
            else:
                yield one
        for worker in workers:
            worker.result()


def in_cpp(root: Path, chosen: Sequence[Mutant]) -> Iterator[Verdict]:
    """One after another in one build folder, those of a file together: each compiles its file once."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Copy(root, Path(folder).resolve())
        for library in (copy.folder / "vea_sdk").glob("_C*.so"):
            library.unlink()
        copy.build()
        passing = []
        for mutant in sorted(chosen, key=lambda mutant: mutant.file):
            try:
                copy.check(mutant.tests)
                passing.append(mutant)
            except UnusableError as error:
                yield Verdict(mutant, False, str(error))
        for mutant in passing:
            yield verdict(mutant, copy.judge)


def judged(root: Path, chosen: Sequence[Mutant], jobs: int, until: float) -> Iterator[Verdict]:
    """Those that do not apply first, then those in Python, then those in C++."""
    applied = []
    for mutant in chosen:
        try:
            mutant.applied(_text(root, mutant))
            applied.append(mutant)
        except UnusableError as error:
            yield Verdict(mutant, False, str(error))
    multiprocessing.get_context("forkserver").set_forkserver_preload(list(PRELOADED))
    yield from in_python(root, [one for one in applied if not one.native], jobs, until)
    if native := [one for one in applied if one.native]:
        yield from in_cpp(root, native)


def main(arguments: Sequence[str] | None = None, root: Path = ROOT) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.mutants.run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("words", nargs="*", help="judge those whose name or file holds one of these")
    parser.add_argument("--python", action="store_true", help="those in Python only")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no other one after so many")
    parser.add_argument("--seed", default="", help="a text that chooses their order, such as a commit")
    parser.add_argument("--jobs", type=int, default=min(os.cpu_count() or 1, 4), help="processes at a time")
    given = parser.parse_args(arguments)
    until = time.monotonic() + 60 * given.minutes
    listed = mutants(root / "tests" / "mutants")
    chosen = [
        one
        for one in in_order(listed, given.seed)
        if (not given.words or any(word in one.name + one.file for word in given.words))
        and not (given.python and one.native)
    ]
    done: list[Verdict] = []
    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True) as bar:
        task = bar.add_task("faults", total=len(chosen))
        for one in judged(root, chosen, given.jobs, until):
            print(one, flush=True)
            done.append(one)
            bar.advance(task)
    clear = [one for one in done if one.problem is None]
    killed, wrong = sum(one.noticed for one in clear), len(done) - len(clear)
    left = f", {wrong} that say{'s' * (wrong == 1)} nothing" if wrong else ""
    print(f"{killed} of {len(clear)} killed ({killed / max(1, len(clear)):.0%}){left}; {len(listed)} are listed")
    return int(wrong > 0 or not clear or killed < LEAST * len(clear))


def _text(root: Path, mutant: Mutant) -> str:
    path = root / mutant.file
    return path.read_text(encoding="utf-8") if path.is_file() else ""


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        sys.exit(main())
    except UnusableError as error:
        sys.exit(str(error))
