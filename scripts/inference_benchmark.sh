#!/usr/bin/env bash
# Runs the test set on one GPU without scoring and prints "Inference perf is: X FPS" (images a second).
#
#   bash scripts/inference_benchmark.sh DTYPE BATCH [OPTION]... [KEY VALUE]...     for example: float16 16
#   SYNTHETIC=1 bash scripts/inference_benchmark.sh float16 16                     invented images: needs no data
#
# CONFIG, RESULTS, DATA_DIR, NHWC and HYBRID as in train.sh. The speed depends on the number of detections, so use a
# trained checkpoint in RESULTS, or SYNTHETIC=1. OPTION is one of tools/benchmark.py, such as --iterations 100. More
# figures, such as percentiles and the time of each stage, are printed and written to RESULTS/inference_benchmark.json.
set -eo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

if [[ $# -lt 2 ]]; then
    die "Usage: bash scripts/inference_benchmark.sh DTYPE BATCH [KEY VALUE]..., for example: float16 16"
fi
DTYPE="$1"
batch="$2"
shift 2
choose_config configs/e2e_mask_rcnn_R_50_FPN_1x.yaml "$@"
use_coco_2017_val
set_up tensorboard
choose_nodes
DATA=(--iterations 0)
if [[ "${SYNTHETIC:-0}" != 0 ]]; then
    DATA=(--synthetic)
else
    require_data TEST -- "${TEST_OPTS[@]}" "${OPTS[@]}" ||
        die "  4. invented images:         SYNTHETIC=1 bash scripts/inference_benchmark.sh $DTYPE $batch"
fi
choose_results
choose_device 1
launch benchmark.py --task inference --json-summary "$RESULTS/dllogger_inference.out" \
    --out "$RESULTS/inference_benchmark.json" "${DATA[@]}" "${FLAGS[@]}" \
    OUTPUT_DIR "$RESULTS" TEST.IMS_PER_BATCH "$batch" "${MACHINE_OPTS[@]}" "${TEST_OPTS[@]}" "${OPTS[@]}"
is_first_node || exit 0 # which knows the time
seconds="$(seconds_in_log 'maskrcnn_benchmark.inference INFO: Total inference time')"
say "Inference perf is: $(divide 1 "$seconds") FPS"
