"""The CPU kernels under sanitizers: AddressSanitizer and UndefinedBehaviorSanitizer over the drawn calls, with torch as
it is (its memory then comes from the sanitizer and ends where the tensor ends), ThreadSanitizer over the thread pool.
Each harness is also shown a mistake, which it must find."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from vea_sdk import _native

HERE = Path(__file__).parent
ROOT = HERE.parent
SOURCES = ("csrc", "setup.py", "pyproject.toml", "README.md", "LICENSE")
MISTAKE = ("csrc/cpu/image_attention.cpp", "ranges_[b].end - begin)", "ranges_[b].end - begin + 1)")  # one key too many

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (ROOT / "csrc").is_dir(), reason="needs a source checkout"),
    pytest.mark.skipif(platform.system() != "Linux" or shutil.which("g++") is None, reason="needs g++ on Linux"),
]


def runtime(name: str) -> str:
    path = subprocess.run(
        ["g++", f"-print-file-name={name}"], capture_output=True, text=True, check=True
    ).stdout.strip()
    if not Path(path).is_absolute():
        pytest.skip(f"g++ comes without {name}")
    return path


def build(folder: Path) -> Path:
    """The extension of the sources in ``folder``, with both sanitizers."""
    pytest.importorskip("pybind11")
    pytest.importorskip("ninja")
    environment = {**os.environ, "CXX": str(HERE / "sanitize" / "c++"), "VEA_CUDA": "0"}
    command = [sys.executable, "setup.py", "-q", "build_ext", "--build-lib", "library", "--build-temp", "objects"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    return next((folder / "library").rglob("_C*.so"))


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sanitized")
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    return folder


def start(extension: Path, path: str, *tests: str) -> subprocess.Popen[str]:
    """pytest on the sanitized extension; -s, so that a report is not lost with the process."""
    environment = {
        **os.environ,
        "LD_PRELOAD": f"{runtime('libasan.so')} {runtime('libstdc++.so')}",  # the latter: it throws before torch loads
        "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1",  # the interpreter itself leaks by design
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "VEA_CPU_PATH": path,
        "OMP_NUM_THREADS": "1",
    }
    command = [
        sys.executable,
        HERE / "sanitize" / "run.py",
        extension,
        "-q",
        "-s",
        "--hypothesis-profile=share",
        *tests,
    ]
    return subprocess.Popen(
        list(map(str, command)), env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def test_drawn_calls_under_address_and_undefined_behaviour_sanitizers(sources):
    extension = build(sources)
    fastest = _native.build_info()["cpu_path"] or "portable"
    tests = [f"{HERE / 'test_ops_properties.py'}::{name}" for name in ("test_drawn_calls", "test_drawn_masks")]
    tests += [str(HERE / name) for name in ("test_ops_errors.py", "test_ops_step.py")]
    runs = {path: start(extension, path, *tests) for path in {fastest, "portable"}}
    for path, run in runs.items():
        output = run.communicate()[0]
        assert run.returncode == 0, output[-8000:]
        drawn, different = re.search(rf"drawn calls: (\d+), (\d+) of them different, on {path}", output).groups()
        print(f"{path}: {drawn} drawn calls, {different} different, no finding")
        assert int(different) >= 300


def test_address_sanitizer_finds_one_key_too_many(sources):
    path, right, wrong = MISTAKE
    text = (sources / path).read_text()
    assert text.count(right) == 1
    (sources / path).write_text(text.replace(right, wrong))
    try:
        run = start(build(sources), "portable", f"{HERE / 'test_ops.py'}::test_every_length")
        output = run.communicate()[0]
    finally:
        (sources / path).write_text(text)
    assert run.returncode != 0
    assert "AddressSanitizer: heap-buffer-overflow" in output
    assert "dots" in output  # names the loop that read it


def run_threads(folder: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    runtime("libtsan.so")
    program = folder / "threads"
    compile_ = ["g++", "-std=c++17", "-O1", "-g", "-fsanitize=thread", "-pthread", *flags, f"-I{ROOT / 'csrc'}"]
    files = [ROOT / "csrc" / "cpu" / "threads.cpp", HERE / "sanitize" / "threads.cpp"]
    subprocess.run([*map(str, [*compile_, *files]), "-o", str(program)], check=True)
    fixed = ["setarch", "-R"] if shutil.which("setarch") else []  # its shadow memory wants a fixed layout of addresses
    return subprocess.run([*fixed, str(program)], capture_output=True, text=True)


def test_thread_pool_under_thread_sanitizer(tmp_path):
    done = run_threads(tmp_path)
    assert done.returncode == 0, done.stderr[-5000:]
    assert done.stdout.startswith("0 jobs wrong")


def test_thread_sanitizer_finds_a_race(tmp_path):
    done = run_threads(tmp_path, "-DRACE")
    assert done.returncode != 0
    assert "ThreadSanitizer: data race" in done.stderr
