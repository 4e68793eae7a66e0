#!/usr/bin/env bash
# Runs the test set on one GPU without scoring and prints "Inference perf is: X FPS" (images a second).
#
#   bash scripts/inference_benchmark.sh DTYPE BATCH [KEY VALUE]...     for example: float16 16
#
# CONFIG, RESULTS, DATA_DIR, NHWC and HYBRID as in train.sh. The weights do not matter for the speed much, but a trained
# checkpoint in RESULTS gives the usual number of detections.
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
require_data TEST -- "${TEST_OPTS[@]}" "${OPTS[@]}"
choose_results
choose_device 1
launch test_net.py --skip-eval "${FLAGS[@]}" OUTPUT_DIR "$RESULTS" TEST.IMS_PER_BATCH "$batch" \
    "${MACHINE_OPTS[@]}" "${TEST_OPTS[@]}" "${OPTS[@]}"
seconds="$(seconds_in_log 'maskrcnn_benchmark.inference INFO: Total inference time')"
say "Inference perf is: $(divide 1 "$seconds") FPS"
