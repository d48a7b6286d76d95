"""What the build makes: contents of wheel and sdist, no leaks between configurations, CUDA code without spills.

Builds take minutes on small machines, hence ``slow``. They run on a copy: the checkout's own build stays as it is.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NVCC = shutil.which("nvcc")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (ROOT / "setup.py").is_file(), reason="needs a source checkout"),
    pytest.mark.skipif(shutil.which("c++") is None, reason="needs a C++ compiler"),
]
needs_nvcc = pytest.mark.skipif(NVCC is None, reason="needs nvcc")


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    target = tmp_path_factory.mktemp("source") / "vea"
    shutil.copytree(
        ROOT, target, ignore=shutil.ignore_patterns(".*", "build", "dist", "*.so", "*.egg-info", "__pycache__")
    )
    return target


def build(copy, kind, folder, **environment):
    """Run the PEP 517 hook in this interpreter's environment, without isolation or network."""
    code = f"from setuptools import build_meta; print(build_meta.build_{kind}({str(folder)!r}))"
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=copy, env={**os.environ, **environment}, capture_output=True, text=True
    )
    return done, folder / (done.stdout.split() or ["nothing"])[-1]


def extension_of(wheel, folder):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [n for n in archive.namelist() if n.startswith("vea_sdk/_C.") and n.endswith(".so")]
        return Path(archive.extract(name, folder))


def size_without_model(wheel):
    """Bytes of the wheel less what the embedded checkpoint takes in it."""
    with zipfile.ZipFile(wheel) as archive:
        model = [file for file in archive.infolist() if file.filename.startswith("vea_sdk/tiny/checkpoint/")]
    assert {"config.json", "model.safetensors"} <= {Path(file.filename).name for file in model}
    return wheel.stat().st_size - sum(file.compress_size for file in model)


@pytest.fixture(scope="module")
def cpu_wheel(copy, tmp_path_factory):
    """Built without CUDA, where nvcc exists right after a build with it."""
    folder = tmp_path_factory.mktemp("wheels")
    if NVCC:
        done, wheel = build(copy, "wheel", folder / "cuda", VEA_CUDA="1", VEA_CUDA_ARCHS="90")
        assert done.returncode == 0, done.stdout + done.stderr
        assert b"cudaLaunchKernel" in extension_of(wheel, folder / "cuda").read_bytes()
    done, wheel = build(copy, "wheel", folder / "cpu", VEA_CUDA="0")
    assert done.returncode == 0, done.stdout + done.stderr
    return wheel


def test_wheel_holds_the_package_and_nothing_else(cpu_wheel):
    names = zipfile.ZipFile(cpu_wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"vea_sdk"}
    for wanted in ("vea_sdk/py.typed", "vea_sdk/_C.pyi", "vea_sdk/ops/image_attention_op.py"):
        assert wanted in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    data = [p.relative_to(ROOT).as_posix() for p in ROOT.glob("vea_sdk/**/*.json")]
    assert not set(data) - set(names)
    metadata = zipfile.ZipFile(cpu_wheel).read(next(n for n in names if n.endswith("METADATA"))).decode()
    assert re.search(r"^Requires-Dist: torch>=2\.10$", metadata, re.MULTILINE)


def test_cpu_wheel_holds_no_cuda_after_a_cuda_build(cpu_wheel, tmp_path):
    binary = extension_of(cpu_wheel, tmp_path).read_bytes()
    for trace in (b"cudaLaunchKernel", b"nv_fatbin", b"__cudaRegister", b"libcuda"):
        assert trace not in binary
    assert size_without_model(cpu_wheel) <= 3 << 20


@pytest.mark.skipif("VEA_WHEEL" not in os.environ, reason="VEA_WHEEL names no wheel built for all GPU architectures")
def test_wheel_for_all_architectures_is_small(tmp_path):
    """The full CUDA build takes minutes: CI makes it once, and hands it over."""
    wheel = Path(os.environ["VEA_WHEEL"])
    binary = extension_of(wheel, tmp_path).read_bytes()
    assert b"75 80 90" in binary  # what build_info() lists: the build for all architectures, not for one
    assert size_without_model(wheel) <= 3 << 20


@needs_nvcc
def test_cuda_build_imports_without_a_driver_and_says_so(cpu_wheel, tmp_path):
    extension = extension_of(next((cpu_wheel.parents[1] / "cuda").glob("*.whl")), tmp_path)
    code = (
        "import importlib.util, sys, vea_sdk\n"
        f"spec = importlib.util.spec_from_file_location('vea_sdk._C', {str(extension)!r})\n"
        "sys.modules['vea_sdk._C'] = module = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(module)\n"
        "info = vea_sdk.build_info()\n"
        "assert info['native'] and info['cuda_archs'] == ['90'], info\n"
        "assert info['cuda'] or 'driver' in info['reasons'][0], info\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_sdist_builds_by_itself(copy, tmp_path):
    done, archive = build(copy, "sdist", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    with tarfile.open(archive) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
    sources = {p.relative_to(ROOT).as_posix() for p in ROOT.glob("csrc/**/*.*")}
    assert sources <= names
    assert {"setup.py", "pyproject.toml", "LICENSE", "vea_sdk/py.typed"} <= names
    assert not [name for name in names if name.endswith((".so", ".o", ".pyc"))]


def test_cuda_on_demand_fails_loudly_without_nvcc(copy, tmp_path):
    (tmp_path / "bin").mkdir()
    for tool in ("c++", "g++", "as", "ld"):
        if path := shutil.which(tool):
            (tmp_path / "bin" / tool).symlink_to(path)
    environment = {"PATH": str(tmp_path / "bin"), "VEA_CUDA": "1", "NVCC": "", "CUDA_HOME": "", "CUDA_PATH": ""}
    if Path("/usr/local/cuda/bin/nvcc").exists():
        pytest.skip("nvcc stands in its default place")
    done, _ = build(copy, "wheel", tmp_path, **environment)
    assert done.returncode != 0
    assert "VEA_CUDA=1, but no nvcc" in done.stdout + done.stderr


@pytest.mark.parametrize("environment", [{"CXX": "no-such-compiler"}, {"CXX": "", "PATH": ""}])
def test_a_missing_compiler_is_named(copy, tmp_path, environment):
    done, _ = build(copy, "wheel", tmp_path, **environment, VEA_CUDA="0")
    assert done.returncode != 0
    said = done.stdout + done.stderr
    sought = repr(environment["CXX"]) if environment["CXX"] else "'c++', 'g++', 'clang++'"
    assert f"no C++ compiler {sought} on the PATH" in said
    for remedy in ("apt-get install g++", "apt-get install clang", "dnf install gcc-c++", "dnf install clang"):
        assert remedy in said
    for remedy in ("brew install gcc", "xcode-select --install", "CXX="):
        assert remedy in said


COMPILER = """#!{python}
import sys, time
from pathlib import Path

log, arguments = Path({log!r}), sys.argv[1:]


def write(word):
    with log.open("a") as file:
        file.write(word + "\\n")


if "--list-gpu-arch" in arguments:
    print("compute_80 compute_90")
elif "--help" not in arguments:
    write(f"start {{' '.join(arguments)}}")
    time.sleep(0.2)
    Path(arguments[arguments.index("-o") + 1]).touch()
    write("end")
"""


@pytest.mark.parametrize("jobs", ["", "1", "3", "40"])
def test_compilers_run_in_parallel_within_max_jobs(copy, tmp_path, jobs):
    """Counted by compilers that note when they begin and end; nvcc counts with its threads."""
    log, tool = tmp_path / "log", tmp_path / "compiler"
    tool.write_text(COMPILER.format(python=sys.executable, log=str(log)))
    tool.chmod(0o755)
    command = [sys.executable, "setup.py", "-q", "build_ext", "-b", str(tmp_path / "out"), "-t", str(tmp_path / "temp")]
    environment = {"CXX": str(tool), "NVCC": str(tool), "VEA_CUDA": "1", "VEA_CUDA_ARCHS": "", "MAX_JOBS": jobs}
    done = subprocess.run(command, cwd=copy, env={**os.environ, **environment}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    running, most, commands = 0, 0, log.read_text().splitlines()
    for line in commands:
        running += 1 if line.startswith("start") else -1
        most = max(most, running)
    threads = {int(found) for found in re.findall(r"--threads (\d+)", log.read_text())}
    assert len(threads) == 1
    if jobs:
        assert most * max(threads) <= int(jobs)
    else:
        assert threads == {0}  # nvcc's word for every core
    assert most > 1 or jobs == "1"
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("vea-sdk: ")]
    assert re.search(r"CUDA half is being built .* 80 90, which takes about \d+ s .* VEA_CUDA=0 leaves it out", line)


def test_a_senseless_max_jobs_is_refused(copy, tmp_path):
    done, _ = build(copy, "wheel", tmp_path, VEA_CUDA="0", MAX_JOBS="many")
    assert done.returncode != 0
    assert "MAX_JOBS='many'" in done.stdout + done.stderr


@needs_nvcc
@pytest.mark.parametrize("arch", ["80", "90"])
def test_cuda_kernels_spill_no_registers(arch, tmp_path):
    for source in sorted((ROOT / "csrc" / "cuda").glob("*.cu")):
        target = [f"-gencode=arch=compute_{arch},code=sm_{arch}", "-c", str(source), "-o", str(tmp_path / "kernel.o")]
        report = subprocess.run(
            [NVCC, "-O3", "-std=c++17", "-Xptxas=-v", *target], capture_output=True, text=True, check=True
        ).stderr
        spills = re.findall(r"(\d+) bytes spill stores, (\d+) bytes spill loads", report)
        assert spills
        assert set(spills) == {("0", "0")}
