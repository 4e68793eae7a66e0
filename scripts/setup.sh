#!/usr/bin/env bash
# Makes everything that the other scripts need, and does nothing when it is there: each of them calls this one.
#
#   bash scripts/setup.sh [--extra NAME]...      NAME: an extra of pyproject.toml (default tensorboard)
#
# The active Python is used where it has torch already; otherwise .venv is made. From the environment:
#   TORCH_SPEC       what pip installs as torch (default torch==2.13.0)
#   TORCH_INDEX_URL  the package index that it comes from (default: pip's own setting)
#   PYTHON           the interpreter to start from (default python3)
#   SKIP_SETUP       set: the other scripts take the environment as it is
#   FORCE_CUDA, TORCH_CUDA_ARCH_LIST, CXX, MAX_JOBS   as torch.utils.cpp_extension reads them
set -eo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

STAMPS="$ROOT/build/setup"
DEFAULT_TORCH="torch==2.13.0"

extras=()
while [[ $# -gt 0 ]]; do
    case "$1" in
        --extra)
            [[ -n "${2:-}" ]] || die "--extra needs a name, for example: --extra test"
            extras+=("$2")
            shift 2
            ;;
        *) die "setup.sh does not know '$1'. Usage: bash scripts/setup.sh [--extra NAME]..." ;;
    esac
done
if [[ ${#extras[@]} -eq 0 ]]; then
    extras=(tensorboard)
fi

is_done() { [[ -f "$STAMPS/$1" && "$(<"$STAMPS/$1")" == "$2" ]]; } # NAME FINGERPRINT
mark_done() { printf '%s\n' "$2" >"$STAMPS/$1"; }
fingerprint_files() { find "$@" -type f ! -name '*.o' -print0 | LC_ALL=C sort -z | xargs -0 cksum | cksum; }

torch_version() {
    "$PYTHON" -c 'import importlib.metadata as m; print(m.version("torch"))' 2>/dev/null || true
}

make_environment() {
    if [[ "$PYTHON" != "$ROOT/.venv/bin/python" ]] || "$PYTHON" -c '' 2>/dev/null; then
        return
    fi
    "$BASE_PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
        die "$BASE_PYTHON is $("$BASE_PYTHON" --version 2>&1); 3.10 or newer is needed. Name another one: PYTHON=/path/to/python3"
    say "[setup] making $ROOT/.venv with $("$BASE_PYTHON" --version)"
    "$BASE_PYTHON" -m venv --clear "$ROOT/.venv" ||
        die "The virtual environment could not be made. On Debian and Ubuntu: apt-get install python3-venv"
}

say_wheel_size() {
    if command -v nvidia-smi >/dev/null || [[ -n "${TORCH_INDEX_URL:-}" || "$(uname -s)" != Linux ]]; then
        return
    fi
    say "[setup] No NVIDIA driver was found. The default Linux wheel of torch brings CUDA: about 2.8 GB to download," \
        "5 GB on disk. For a CPU wheel (0.2 GB, 0.9 GB on disk) stop here and set TORCH_INDEX_URL to the CPU index" \
        "that https://pytorch.org/get-started/locally names."
}

install_torch() {
    local spec="${TORCH_SPEC:-$DEFAULT_TORCH}" from=()
    if [[ -n "$(torch_version)" ]]; then
        # What is there stays, unless another one is asked for by name.
        if [[ -z "${TORCH_SPEC:-}" ]] || is_done torch "$PYTHON $spec"; then
            return
        fi
    fi
    say_wheel_size
    if [[ -n "${TORCH_INDEX_URL:-}" ]]; then
        from=(--index-url "$TORCH_INDEX_URL")
    fi
    say "[setup] installing $spec"
    # Alone and first: whatever comes later then finds it there, and pip has no reason to fetch another build of it.
    "$PYTHON" -m pip install --disable-pip-version-check "${from[@]}" "$spec" ||
        die "[setup] pip could not install '$spec'. Set TORCH_SPEC to a version that exists for $("$PYTHON" --version)" \
            "and TORCH_INDEX_URL to an index that has it."
    mark_done torch "$PYTHON $spec"
}

install_dependencies() {
    local state wanted="" name missing=() constraint
    state="$PYTHON $(torch_version) $(fingerprint_files "$ROOT/pyproject.toml")"
    for name in "${extras[@]}"; do
        if ! is_done "extra-$name" "$state"; then
            missing+=("$name")
            wanted="${wanted:+$wanted,}$name"
        fi
    done
    if [[ ${#missing[@]} -eq 0 ]]; then
        return
    fi
    say "[setup] installing maskrcnn_benchmark[$wanted] and what it depends on"
    constraint="$STAMPS/constraint.txt"
    printf 'torch==%s\n' "$(torch_version)" >"$constraint"
    # CXX names no compiler here: the extension is compiled below, where its progress shows.
    (cd "$ROOT" && CXX=none MASKRCNN_REQUIRE_EXT=0 PYTHONWARNINGS=ignore "$PYTHON" -m pip install --disable-pip-version-check --no-build-isolation \
        -c "$constraint" -e ".[$wanted]") |
        { grep -v '^Requirement already satisfied' || true; } ||
        die "[setup] pip could not install the dependencies; the lines above say which."
    for name in "${missing[@]}"; do
        mark_done "extra-$name" "$state"
    done
}

has_compiler() {
    local name
    for name in ${CXX:-c++ g++ clang++}; do # CXX may carry options: its words beyond the first are no programs
        if command -v "$name" >/dev/null; then
            return 0
        fi
    done
    return 1
}

explain_failure() { # LOG
    grep -E -m 5 'error|Error|Killed|No such file' "$1" >&2 || tail -n 10 "$1" >&2
    say "[setup] The extension did not compile; the first errors are above, everything is in $1." >&2
    if grep -q 'Python\.h' "$1"; then
        say "Remedy: the headers of Python are missing. On Debian and Ubuntu: apt-get install python3-dev" >&2
    elif grep -qE 'Killed|out of memory|cannot allocate' "$1"; then
        say "Remedy: the compiler ran out of memory. Compile one file at a time: MAX_JOBS=1 bash scripts/setup.sh" >&2
    elif grep -qE 'CUDA version|nvcc|cuda_runtime' "$1"; then
        say "Remedy: nvcc and torch must have the same CUDA major version; set CUDA_HOME to the matching toolkit." >&2
    else
        say "Remedy: a compiler with C++20 is needed (GCC 11, Clang 14 or newer); choose one with CXX=." >&2
    fi
    say "To go on without it, with the slower plain kernels: SKIP_SETUP=1 before the command." >&2
}

build_extension() {
    local state log="$STAMPS/extension.log" pid said=0
    state="$PYTHON $(torch_version) ${FORCE_CUDA:-} ${TORCH_CUDA_ARCH_LIST:-} $(fingerprint_files "$ROOT/csrc" "$ROOT/setup.py")"
    if is_done extension "$state" && compgen -G "$ROOT/maskrcnn_benchmark/_C*.so" >/dev/null; then
        return
    fi
    if ! has_compiler; then
        say "[setup] No C++ compiler was found: the plain PyTorch kernels are used, which are slower." \
            "On Debian and Ubuntu: apt-get install g++ python3-dev; then run this again." >&2
        [[ "${MASKRCNN_REQUIRE_EXT:-0}" != 1 ]] || die "[setup] MASKRCNN_REQUIRE_EXT=1 does not allow that."
        return
    fi
    say "[setup] compiling the extension (once, and after a change of csrc; a minute or two)"
    # Ninja compiles the files side by side; without it they compile one after the other.
    PATH="$(dirname "$PYTHON"):$PATH"
    if ! command -v ninja >/dev/null; then
        "$PYTHON" -m pip install --disable-pip-version-check -q ninja || say "[setup] going on without ninja" >&2
    fi
    (cd "$ROOT" && exec "$PYTHON" setup.py build_ext --inplace) >"$log" 2>&1 &
    pid=$!
    trap 'kill $pid 2>/dev/null; exit 130' INT TERM
    SECONDS=0
    while kill -0 "$pid" 2>/dev/null; do
        sleep 0.2
        if ((SECONDS >= said + 15)); then
            said=$SECONDS
            say "[setup]   compiling, $said s"
        fi
    done
    trap - INT TERM
    if ! wait "$pid" || ! compgen -G "$ROOT/maskrcnn_benchmark/_C*.so" >/dev/null; then
        explain_failure "$log"
        exit 1
    fi
    mark_done extension "$state"
}

find_python
mkdir -p "$STAMPS"
# Two jobs started together set up one after the other.
if command -v flock >/dev/null; then
    exec 9>"$STAMPS/lock"
    flock 9
fi
make_environment
install_torch
install_dependencies
build_extension
