#!/usr/bin/env bash
# Tests and measures on the GPU at hand all that needs one; the logs and results go to OUT.
#
#   bash scripts/check_gpu.sh OUT [PART]...      PART: build, tests, sanitizer, speed (default: all four)
#
# build: the extension with its CUDA kernels. tests: those marked gpu. sanitizer: the ops' tests under compute-sanitizer,
# where that is installed. speed: benchmarks/train_speed.py, whose table joins benchmarks/results.
# LIMIT: seconds for each part (default 3600). SPEED: options of train_speed.py, such as "--part 1/4 --time-limit 500".
# SKIP_SETUP=1: install nothing, for machines without a network that have torch and pytest.
set -eo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

[[ $# -ge 1 ]] || die "Usage: bash scripts/check_gpu.sh OUT [build|tests|sanitizer|speed]..."
OUT="$1"
shift
PARTS=("$@")
[[ $# -gt 0 ]] || PARTS=(build tests sanitizer speed)
for part in "${PARTS[@]}"; do
    [[ "$part" =~ ^(build|tests|sanitizer|speed)$ ]] || die "There is no part $part: build, tests, sanitizer, speed."
done
mkdir -p "$OUT"
OUT="$(cd "$OUT" && pwd)"
set_up test
cd "$ROOT"
[[ "$(count_gpus)" -gt 0 ]] ||
    die "This machine has no usable CUDA device, or its torch is a CPU build; the other tests run with scripts/test.sh."

# shellcheck disable=SC2329,SC2086  # called below by name; SPEED holds several words
run_part() {
    export MASKRCNN_REQUIRE_EXT=1
    case "$1" in
        build) "$PYTHON" setup.py build_ext --inplace ;;
        tests) "$PYTHON" -m pytest -q -p no:cacheprovider -m gpu --all tests ;;
        sanitizer)
            command -v compute-sanitizer >/dev/null || { echo "compute-sanitizer is not installed"; return 77; }
            PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --error-exitcode 9 \
                "$PYTHON" -m pytest -q -p no:cacheprovider -m gpu tests/ops
            ;;
        speed) "$PYTHON" benchmarks/train_speed.py ${SPEED:-} && cp benchmarks/results/train_speed.json "$OUT" ;;
    esac
}
export -f run_part
export PYTHON OUT

failed=0
for part in "${PARTS[@]}"; do
    SECONDS=0
    status=0
    timeout "${LIMIT:-3600}" bash -c "run_part $part" >"$OUT/$part.log" 2>&1 || status=$?
    case "$status" in
        0) verdict=passed ;;
        77) verdict="not run: $(tail -n 1 "$OUT/$part.log")" ;;
        124) verdict="stopped after ${LIMIT:-3600} s" failed=1 ;;
        *) verdict="failed with status $status" failed=1 ;;
    esac
    say "$part: $verdict ($SECONDS s; $OUT/$part.log)"
    [[ "$verdict" == passed || "$status" == 77 ]] || tail -n 15 "$OUT/$part.log"
done
exit "$failed"
