# shellcheck shell=bash disable=SC2034
# What the scripts share; source it, do not run it. Sets ROOT, and the functions below set the names they mention.
# No "set -u" in the scripts: bash 3.2 and 4.3 take an empty "${array[@]}" for an unset name.

unset CDPATH # with which "cd results" may lead to another folder of that name
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
# shellcheck source=scripts/nodes_lib.sh
source "$ROOT/scripts/nodes_lib.sh"

say() { printf '%s\n' "$*"; }

die() {
    printf '%s\n' "$@" >&2
    exit 1
}

has_module() { # PYTHON MODULE: finds it without importing it
    "$1" -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec(sys.argv[1]) is None)' "$2" 2>/dev/null
}

is_externally_managed() { # PYTHON: a system Python that pip must leave alone (PEP 668), unless it is told not to
    "$1" -c 'import os, sys, sysconfig
sys.exit(sys.prefix != sys.base_prefix
         or os.environ.get("PIP_BREAK_SYSTEM_PACKAGES", "").lower() in ("1", "true", "yes", "on")
         or not os.path.exists(os.path.join(sysconfig.get_path("stdlib"), "EXTERNALLY-MANAGED")))'
}

# Sets BASE_PYTHON, the active interpreter, and PYTHON, the one that runs the project: the active one where it has
# torch already (a virtual or conda environment, a container), .venv otherwise.
find_python() {
    if [[ -n "${PYTHON:-}" ]]; then
        BASE_PYTHON="$PYTHON"
        command -v "$BASE_PYTHON" >/dev/null || die "PYTHON is '$BASE_PYTHON', which is not a program."
    else
        BASE_PYTHON="$(command -v python3 || command -v python)" ||
            die "Python was not found. Install Python 3.10 or newer, or name one: PYTHON=/path/to/python3"
    fi
    if has_module "$BASE_PYTHON" torch && ! is_externally_managed "$BASE_PYTHON"; then
        PYTHON="$BASE_PYTHON"
    else
        PYTHON="$ROOT/.venv/bin/python"
    fi
}

# set_up EXTRA...: prepares the environment (well below a second when nothing is to be done) and sets PYTHON.
set_up() {
    local extra options=()
    if [[ -z "${SKIP_SETUP:-}" ]]; then
        for extra in "$@"; do
            options+=(--extra "$extra")
        done
        bash "$ROOT/scripts/setup.sh" "${options[@]}"
    fi
    find_python
    # The code of this checkout runs, also where the environment knows another one.
    export PYTHONPATH="$ROOT${PYTHONPATH:+:$PYTHONPATH}"
}

# choose_config DEFAULT "$@": sets CONFIG, FLAGS (options of the tool) and OPTS (KEY VALUE pairs).
# A first argument that ends in .yaml is the config; then the environment's CONFIG, then DEFAULT.
choose_config() {
    local default="$1"
    shift
    case "${1:-}" in
        *.yaml | *.yml)
            CONFIG="$1"
            shift
            ;;
        *) CONFIG="${CONFIG:-$default}" ;;
    esac
    if [[ ! -f "$CONFIG" && -f "$ROOT/$CONFIG" ]]; then
        CONFIG="$ROOT/$CONFIG"
    fi
    if [[ -z "$CONFIG" || ! -f "$CONFIG" ]]; then
        die "The config file '$CONFIG' does not exist, neither here nor below $ROOT." \
            "The published ones are in $ROOT/configs; the demo is configs/demo/mask_rcnn_R_18_FPN_shapes.yaml."
    fi
    if [[ "$CONFIG" == -* ]]; then
        CONFIG="./$CONFIG" # which no program takes for an option
    fi
    FLAGS=()
    while [[ $# -gt 0 && ! "$1" =~ ^[A-Z][A-Z0-9_]*(\.[A-Z0-9_]+)*$ ]]; do
        FLAGS+=("$1")
        shift
    done
    OPTS=("$@")
}

# Sets RESULTS: the one asked for, or /results, or ./results where / cannot be written.
choose_results() {
    if [[ -z "${RESULTS:-}" ]]; then
        RESULTS=/results
        if ! mkdir -p "$RESULTS" 2>/dev/null || [[ ! -w "$RESULTS" ]]; then
            RESULTS="$PWD/results"
        fi
    fi
    mkdir -p "$RESULTS" 2>/dev/null || die "The result folder '$RESULTS' cannot be made; choose another one with RESULTS=."
    [[ -w "$RESULTS" ]] || die "The result folder '$RESULTS' cannot be written; choose another one with RESULTS=."
    RESULTS="$(cd "$RESULTS" && pwd)"
}

count_gpus() {
    # Importing torch takes seconds: not where there is no driver at all.
    if ! command -v nvidia-smi >/dev/null && [[ ! -e /dev/nvidiactl && ! -e /dev/dxg ]]; then
        echo 0
    else
        "$PYTHON" -c 'import torch; print(torch.cuda.device_count())'
    fi
}

# choose_device MAX: sets GPU (the number of processes, at most MAX by default), DTYPE, NHWC, HYBRID and MACHINE_OPTS.
choose_device() {
    local most="$1" present
    present="$(count_gpus)"
    if [[ -n "${GPU:-}" && ! "${GPU}" =~ ^[1-9][0-9]*$ ]]; then
        die "GPU is '$GPU'; it is the number of processes, 1 or more."
    fi
    MACHINE_OPTS=()
    if [[ "$present" -eq 0 ]]; then
        GPU="${GPU:-1}"
        say "No CUDA device: running on the CPU, processes: $GPU."
        DTYPE="${DTYPE:-float32}" NHWC="${NHWC:-True}" HYBRID="${HYBRID:-False}"
        MACHINE_OPTS=(MODEL.DEVICE cpu)
    else
        GPU="${GPU:-$((present < most ? present : most))}"
        if [[ "$GPU" -gt "$present" ]]; then
            die "GPU is $GPU, but this machine has $present CUDA device(s)."
        fi
        DTYPE="${DTYPE:-float16}" NHWC="${NHWC:-True}" HYBRID="${HYBRID:-True}"
    fi
    case "$DTYPE" in # as published, what is not half precision is full precision: fp32, float, ...
        float16 | fp16) DTYPE=float16 ;;
        bfloat16 | bf16) DTYPE=bfloat16 ;;
        tf32) DTYPE=tf32 ;;
        *) DTYPE=float32 ;;
    esac
    MACHINE_OPTS+=(DTYPE "$DTYPE" NHWC "$NHWC" DATALOADER.HYBRID "$HYBRID")
}

# require_data SPLIT... -- KEY VALUE ...: ends here, with the ways to get one, when a data set of the config is missing.
require_data() {
    if [[ -n "${DATA_DIR:-}" ]]; then
        export DATA_DIR
    fi
    "$PYTHON" "$ROOT/scripts/check_data.py" "$CONFIG" "$@"
}

# launch TOOL ARGUMENT...: runs it with the config in GPU processes on this node, as one of the nodes that choose_nodes
# found, and keeps what it prints in RESULTS/joblog.log. Ends with the status of the tool.
launch() {
    local tool="$ROOT/tools/$1" command summary=dllogger.out
    shift
    if [[ "$tool" == */test_net.py ]]; then
        summary=dllogger_inference.out
    fi
    if [[ "$GPU" -gt 1 && -z "${OMP_NUM_THREADS:-}" ]]; then
        # One process must not take the cores of the others.
        local cores
        cores="$("$PYTHON" -c 'import os; print(os.cpu_count() or 1)')"
        export OMP_NUM_THREADS=$((cores / GPU > 0 ? cores / GPU : 1))
    fi
    if [[ "$GPU" -eq 1 && ${#NODE_OPTS[@]} -eq 0 ]]; then
        command=("$PYTHON" -u "$tool")
    else
        [[ ${#NODE_OPTS[@]} -gt 0 ]] || NODE_OPTS=(--standalone)
        # A batch system may send USR1 to every process; torchrun then tells its own, instead of leaving them alone.
        export TORCHELASTIC_SIGNALS_TO_HANDLE=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1
        local launcher=(-m torch.distributed.run)
        ((MOST_NODES == 1)) || launcher=("$ROOT/scripts/launch.py")
        command=(
            "$PYTHON" -u "${launcher[@]}" "${NODE_OPTS[@]}" --nproc_per_node="$GPU"
            "$ROOT/scripts/worker.py" "$tool"
        )
    fi
    run_logged "${command[@]}" --config-file "$CONFIG" --json-summary "$RESULTS/$summary" "$@"
}

# Sets TEST_OPTS. As published, inference runs on COCO 2017 val: the photos that 2014 calls minival.
use_coco_2017_val() {
    TEST_OPTS=()
    if grep -q coco_2014_minival "$CONFIG"; then
        TEST_OPTS=(DATASETS.TEST '("coco_2017_val",)')
    fi
}

# option_value KEY DEFAULT: the value that OPTS gives to KEY, else DEFAULT.
option_value() {
    local value="$2" index
    for ((index = 0; index + 1 < ${#OPTS[@]}; index += 2)); do
        if [[ "${OPTS[index]}" == "$1" ]]; then
            value="${OPTS[index + 1]}"
        fi
    done
    printf '%s' "$value"
}

# Several nodes need not share RESULTS: the others get the checkpoint of the first one.
require_checkpoint() {
    if is_first_node && [[ ! -f "$RESULTS/last_checkpoint" && -z "$(option_value MODEL.WEIGHT "")" ]]; then
        die "There is no trained model in $RESULTS (no file last_checkpoint). Train first with scripts/train.sh," \
            "name the folder with RESULTS=, or give a weight file: MODEL.WEIGHT FILE"
    fi
}

# seconds_in_log LINE: the seconds in brackets on the last such line of this run's log, which process 0 writes.
seconds_in_log() {
    local seconds
    seconds="$(grep -F "$1" "$RESULTS/$JOBLOG" | tail -n 1 | sed -E 's/.*\(([0-9.]+) s .*/\1/')"
    [[ "$seconds" =~ ^[0-9.]+$ ]] || die "The log $RESULTS/$JOBLOG has no line '$1'."
    printf '%s' "$seconds"
}

divide() { awk -v a="$1" -v b="$2" 'BEGIN { if (b > 0) printf "%.2f", a / b; else print "nan" }'; }
