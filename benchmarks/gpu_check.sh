#!/usr/bin/env bash
# Everything that needs a GPU, in one call of under 9 minutes:
#
#     benchmarks/gpu_check.sh OUT_DIR
#
# Builds for this GPU only, beside the environment and not into it; nothing is downloaded, so torch, transformers, pytest,
# pybind11, ninja and nvcc must be there. VEA_SITE=DIR takes the package that lies installed there instead. Stages have
# time limits; one that fails does not stop the others. What is timed runs alone, what is checked runs side by side.
# OUT_DIR gets summary.txt, a log of every stage, and rows as JSON. Exit status: the number of stages that failed.
set -uo pipefail
[ $# -eq 1 ] || { echo "usage: $0 OUT_DIR" >&2; exit 2; }
mkdir -p "$1" || exit 2
out=$(cd "$1" && pwd)
cd "$(dirname "$0")/.." || exit 2

python=${PYTHON:-python3}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
summary=$out/summary.txt
: >"$summary"
VEA_COMMIT=${VEA_COMMIT:-$(git rev-parse --short=10 HEAD 2>/dev/null || echo unknown)}
export VEA_COMMIT

say() { printf '%-10s %s\n' "$1" "$2" | tee -a "$summary"; }

# stage NAME SECONDS COMMAND...
stage() {
    local name=$1 limit=$2 started=$SECONDS status log=$out/$1.log
    shift 2
    timeout --kill-after=5 "$limit" "$@" >"$log" 2>&1
    status=$?
    case $status in
        0) say "$name" "passed in $((SECONDS - started)) s" ;;
        124 | 137) say "$name" "FAILED: cut after $limit s" ;;
        *) say "$name" "FAILED with status $status after $((SECONDS - started)) s"
           tail -n 15 "$log" | sed 's/^/    /' ;;
    esac
    return $status
}
failed() { grep -c FAILED "$summary"; }
stages="build kernels tests memcheck racecheck initcheck profile models"
skip_all() { for name in $stages; do say "$name" "skipped: $1"; done; exit "$(failed)"; }

arch=$("$python" -c 'import torch; print("{}{}".format(*torch.cuda.get_device_capability()) if torch.cuda.is_available() else "")')
[ -n "$arch" ] || skip_all "torch sees no CUDA device here"
say device "$("$python" -c 'import torch; print(torch.cuda.get_device_name(), "torch", torch.__version__)'), sm_$arch"

if [ -n "${VEA_SITE:-}" ]; then
    export PYTHONPATH=$VEA_SITE
    say build "skipped: VEA_SITE holds one"
else
    command -v nvcc >/dev/null || skip_all "no nvcc on the PATH, so the kernels cannot be built"
    export PYTHONPATH=$scratch
    VEA_CUDA=1 VEA_CUDA_ARCHS=$arch stage build 100 \
        "$python" -m pip install --no-build-isolation --no-deps --no-index --target "$scratch" . ||
        { stages=${stages#build } && skip_all "the build failed"; }
fi

stage kernels 60 "$python" benchmarks/gpu.py kernels --out "$out"

# -P keeps the checkout's own vea_sdk, which has no extension for this GPU, off the path. Only the files with such tests:
# the others may import what is not here.
stage tests 120 "$python" -P -m pytest -m gpu -q -p no:cacheprovider $(grep -l 'mark.gpu' tests/test_*.py) &
sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2>/dev/null)
for tool in memcheck racecheck initcheck; do
    if [ -n "$sanitizer" ]; then
        PYTORCH_NO_CUDA_MEMORY_CACHING=1 stage $tool 100 \
            "$sanitizer" --tool $tool --error-exitcode 9 "$python" benchmarks/sanitize.py &
    else
        say $tool "skipped: no compute-sanitizer here"
    fi
done
wait

if command -v ncu >/dev/null; then # at the clocks as they are: the card's settings are left alone
    stage profile 40 ncu --clock-control none --kernel-name-base mangled --kernel-name regex:3vea \
        --metrics gpu__time_duration.sum,dram__throughput.avg.pct_of_peak_sustained_elapsed,sm__warps_active.avg.pct_of_peak_sustained_active,smsp__inst_executed.sum,launch__registers_per_thread,launch__grid_size \
        --log-file "$out/ncu.txt" "$python" benchmarks/gpu.py once
else
    say profile "skipped: no ncu here"
fi

stage models 240 "$python" benchmarks/gpu.py models --rounds 6 --out "$out" # last: rows are written as they are measured

echo "$(failed) stages failed; took $SECONDS s" | tee -a "$summary"
exit "$(failed)"
