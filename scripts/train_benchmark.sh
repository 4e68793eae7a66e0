#!/usr/bin/env bash
# Trains 500 iterations and prints "Training perf is: X FPS" (images a second, all GPUs together), warm-up left out.
#
#   bash scripts/train_benchmark.sh DTYPE GPUS NHWC HYBRID [OPTION]... [KEY VALUE]...    for example: float16 8 True True
#   SYNTHETIC=1 bash scripts/train_benchmark.sh float16 1 True True                      invented images: needs no data
#
# CONFIG, RESULTS and DATA_DIR as in train.sh. OPTION is one of tools/benchmark.py, such as --profile trace.json. More
# figures, such as percentiles and the time of each stage, are printed and written to RESULTS/train_benchmark.json.
set -eo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

if [[ $# -lt 4 ]]; then
    die "Usage: bash scripts/train_benchmark.sh DTYPE GPUS NHWC HYBRID [KEY VALUE]..., for example: float16 8 True True"
fi
DTYPE="$1" GPU="$2" NHWC="$3" HYBRID="$4"
shift 4
choose_config configs/e2e_mask_rcnn_R_50_FPN_1x.yaml "$@"
set_up tensorboard
choose_nodes
DATA=()
if [[ "${SYNTHETIC:-0}" != 0 ]]; then
    DATA=(--synthetic)
else
    require_data TRAIN -- "${OPTS[@]}" ||
        die "  4. invented images:         SYNTHETIC=1 bash scripts/train_benchmark.sh $DTYPE $GPU $NHWC $HYBRID"
fi
choose_results
choose_device 8
batch="$(option_value SOLVER.IMS_PER_BATCH $((12 * GPU * MOST_NODES)))"
launch benchmark.py --task train --iterations 0 --out "$RESULTS/train_benchmark.json" "${DATA[@]}" "${FLAGS[@]}" \
    OUTPUT_DIR "$RESULTS" "${MACHINE_OPTS[@]}" SOLVER.BASE_LR 0.04 SOLVER.MAX_ITER 500 SOLVER.STEPS "(30000, 40000)" \
    SOLVER.IMS_PER_BATCH "$batch" "${OPTS[@]}"
is_first_node || exit 0 # which knows the time
seconds="$(seconds_in_log 'maskrcnn_benchmark.trainer INFO: Total training time')"
say "Training perf is: $(divide "$batch" "$seconds") FPS"
