"""Builds the compiled extension with ninja; everything static stands in pyproject.toml.

VEA_CUDA=auto|0|1    the CUDA half: if nvcc is found (default), never, or fail without it
VEA_CUDA_ARCHS="90"  the GPU architectures to build for, instead of all
MAX_JOBS=4           how many compilers run at once, instead of as many as there are cores
CXX, NVCC            the compilers
"""

from __future__ import annotations

import math
import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

ROOT = Path(__file__).parent.resolve()
CSRC = ROOT / "csrc"

NO_COMPILER = """\
no C++ compiler {sought} on the PATH. Install g++ 12 or clang 14, or a later one:
  Debian, Ubuntu   sudo apt-get install g++       sudo apt-get install clang
  Fedora           sudo dnf install gcc-c++       sudo dnf install clang
  macOS            brew install gcc               xcode-select --install
or name one that you have, as in CXX=/path/to/g++ pip install ."""

# Seconds of one core's work that nvcc 13.0 takes per architecture (38 s for all six; the C++ half takes 35 s).
SECONDS_PER_ARCH = 6.5

# One architecture per binary-compatible family (80 serves 86 to 89, 100 serves 103, 120 serves 121), and PTX of the
# last for what comes later. The kernels hold nothing that a finer list would make faster.
CUDA_ARCHS = ("75", "80", "90", "100", "110", "120")

# The inner loops, once per instruction set: table, floats per vector, flags.
CPU_TABLES = {"portable": ("kPortable", 8, "")}
if platform.machine().lower() in ("x86_64", "amd64"):
    CPU_TABLES["avx2"] = ("kAvx2", 8, "-mavx2 -mfma -mf16c")
    CPU_TABLES["avx512"] = ("kAvx512", 16, "-mavx512f -mavx512dq -mavx512bw -mavx512vl -mfma -mf16c")
    CPU_TABLES["avx512_bf16"] = ("kAvx512Bf16", 16, CPU_TABLES["avx512"][2] + " -mavx512bf16")


def quoted(path: Path | str) -> str:
    """A path as ninja wants it."""
    return str(path).replace("$", "$$").replace(" ", "$ ").replace(":", "$:")


def find_cxx() -> str:
    """The C++ compiler's command: CXX, or the first that is installed (Fedora's clang brings no c++)."""
    names = [chosen] if (chosen := os.environ.get("CXX")) else ["c++", "g++", "clang++"]
    for name in names:
        if shutil.which(shlex.split(name)[0]):
            return name
    raise CompileError(NO_COMPILER.format(sought=", ".join(map(repr, names))))


def find_nvcc() -> Path | None:
    homes = [Path(os.environ[name]) / "bin" for name in ("CUDA_HOME", "CUDA_PATH") if name in os.environ]
    for candidate in (os.environ.get("NVCC"), *homes, None, "/usr/local/cuda/bin"):
        path = candidate if candidate and Path(candidate).is_file() else None
        path = path or shutil.which("nvcc", path=str(candidate) if candidate else None)
        if path:
            return Path(path).resolve()
    return None


def wanted_nvcc() -> Path | None:
    """nvcc, if the CUDA half is to be built."""
    choice = os.environ.get("VEA_CUDA", "auto")
    if choice not in ("auto", "0", "1"):
        raise CompileError(f"VEA_CUDA={choice!r}; choose auto, 0 or 1")
    nvcc = None if choice == "0" else find_nvcc()
    if choice == "1" and nvcc is None:
        raise CompileError("VEA_CUDA=1, but no nvcc on the PATH, in CUDA_HOME or in NVCC; VEA_CUDA=0 goes without")
    return nvcc


def max_jobs() -> int | None:
    """How many compilers may run at once; None where nobody set a limit."""
    given = os.environ.get("MAX_JOBS")
    if given and not (given.isdecimal() and int(given)):
        raise CompileError(f"MAX_JOBS={given!r}; give a number from 1 on")
    return int(given) if given else None


def announce_cuda(nvcc: Path, archs: list[str], jobs: int | None) -> None:
    """Say what takes the time, in one line, before it is taken."""
    cores = min(jobs or sys.maxsize, os.cpu_count() or 1)
    seconds = math.ceil(SECONDS_PER_ARCH * len(archs) / cores / 10) * 10
    sys.stderr.write(
        f"vea-sdk: the CUDA half is being built with {nvcc} for {' '.join(archs)}, which takes about {seconds} s more "
        f"on {cores} {'core' if cores == 1 else 'cores'}; VEA_CUDA=0 leaves it out\n"
    )


def cuda_archs(nvcc: Path) -> list[str]:
    if chosen := os.environ.get("VEA_CUDA_ARCHS"):
        return chosen.replace(";", " ").replace(",", " ").replace(".", "").split()
    known = subprocess.run([nvcc, "--list-gpu-arch"], capture_output=True, text=True, check=True).stdout
    return [arch for arch in CUDA_ARCHS if f"compute_{arch}" in known.split()]


def cuda_flags(nvcc: Path, archs: list[str]) -> str:
    flags = [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in archs]
    flags.append(f"-gencode=arch=compute_{archs[-1]},code=compute_{archs[-1]}")
    if "--compress-mode" in subprocess.run([nvcc, "--help"], capture_output=True, text=True, check=True).stdout:
        flags.append("-compress-mode=size")
    return " ".join(["-O3 -std=c++17 -Xcompiler=-fPIC,-fvisibility=hidden", *flags])


class BuildNative(build_ext):
    """Hands the work to ninja, which rebuilds what changed: a source, a header, or a command line."""

    def build_extension(self, ext: Extension) -> None:
        cxx, nvcc, jobs = find_cxx(), wanted_nvcc(), max_jobs()
        archs = cuda_archs(nvcc) if nvcc else []
        # A folder per configuration: what an earlier build with CUDA left behind cannot slip into one without.
        folder = Path(self.build_temp).resolve() / ("cuda" if nvcc else "cpu")
        folder.mkdir(parents=True, exist_ok=True)
        library = folder / Path(self.get_ext_filename(ext.name)).name
        (folder / "build.ninja").write_text(self.rules(cxx, nvcc, archs, library))
        if nvcc:
            announce_cuda(nvcc, archs, jobs)
        limit = [f"-j{jobs}"] if jobs else []
        try:
            subprocess.run([sys.executable, "-m", "ninja", "--quiet", "-C", str(folder), *limit], check=True)
        except subprocess.CalledProcessError as error:
            raise CompileError(f"ninja failed in {folder}; its output stands above") from error
        target = Path(self.get_ext_fullpath(ext.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(library, target)

    def rules(self, cxx: str, nvcc: Path | None, archs: list[str], library: Path) -> str:
        import pybind11

        includes = f"-I{pybind11.get_include()} -I{sysconfig.get_paths()['include']}"
        link = f"{cxx} -shared -pthread -Wl,--strip-all"
        if sys.platform == "darwin":
            link = f"{cxx} -bundle -undefined dynamic_lookup"
        if nvcc:  # knows where its static runtime lies, so that the module imports without a driver
            link = f"{quoted(nvcc)} -shared -cudart static -Xcompiler=-pthread -Xlinker=--strip-all"
        lines = [
            "rule cxx",
            # The two warnings left out are about GCC's own vector headers.
            f"  command = {cxx} -std=c++17 -O3 -fPIC -fvisibility=hidden -Wall -Wextra -Wno-psabi "
            "-Wno-maybe-uninitialized $flags -MMD -MF $out.d -c $in -o $out",
            "  depfile = $out.d",
            "rule link",
            f"  command = {link} $in -o $out",
        ]
        objects = []

        def build(rule: str, name: str, source: Path, flags: str) -> None:
            lines.extend([f"build {name}.o: {rule} {quoted(source)}", f"  flags = {flags}"])
            objects.append(f"{name}.o")

        for name, (table, width, flags) in CPU_TABLES.items():
            defines = f"-DVEA_TABLE={table} -DVEA_WIDTH={width}"
            for source in ("inner", "pixels") if name != "avx512_bf16" else ("inner",):  # no bfloat16 in pixels
                build("cxx", f"{source}_{name}", CSRC / "cpu" / f"{source}.cpp", f"{flags} {defines}")
        for name in ("image_attention", "runs", "topk_mask", "evidence", "threads", "dispatch"):
            build("cxx", name, CSRC / "cpu" / f"{name}.cpp", "")
        cuda = f"-DVEA_CUDA_ARCHS='\"{' '.join(archs)}\"'" if nvcc else ""
        for name in ("bindings", "bindings_evidence", "tap"):
            build("cxx", name, CSRC / f"{name}.cpp", f"{includes} {cuda}")
        if nvcc:
            sources = sorted((CSRC / "cuda").glob("*.cu"))
            # nvcc compiles for one architecture after another unless told otherwise. Where MAX_JOBS is a limit, its
            # threads share it with all that ninja may start beside it; 0 is as many as there are cores.
            jobs = max_jobs()
            threads = max(1, jobs // (len(objects) + len(sources))) if jobs else 0
            lines += [
                "rule nvcc",
                f"  command = {quoted(nvcc)} --threads {threads} {cuda_flags(nvcc, archs)} "
                "-MD -MF $out.d -c $in -o $out",
                "  depfile = $out.d",
            ]
            for source in sources:
                build("nvcc", f"cuda_{source.stem}", source, "")
        lines.append(f"build {quoted(library)}: link {' '.join(objects)}")
        return "\n".join([*lines, ""])


setup(
    ext_modules=[Extension("vea_sdk._C", [str(p.relative_to(ROOT)) for p in sorted(CSRC.rglob("*.cpp"))])],
    cmdclass={"build_ext": BuildNative},
)
