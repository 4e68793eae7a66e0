#!/usr/bin/env bash
# Runs the newest checkpoint in RESULTS over the test set one image at a time, and writes bbox.json and segm.json.
#
#   bash scripts/inference.sh CONFIG.yaml [KEY VALUE]...
#
# As published it takes no scores (--skip-eval) and one GPU. The environment is that of train.sh.
set -eo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

if [[ -z "${1:-}${CONFIG:-}" ]]; then
    die "Usage: bash scripts/inference.sh CONFIG.yaml [KEY VALUE]..."
fi
choose_config "" "$@"
use_coco_2017_val
set_up tensorboard
choose_nodes
require_data TEST -- "${TEST_OPTS[@]}" "${OPTS[@]}"
choose_results
require_checkpoint
choose_device 1
say "Running $CONFIG; detections go to $RESULTS"
launch test_net.py --skip-eval "${FLAGS[@]}" OUTPUT_DIR "$RESULTS" TEST.IMS_PER_BATCH 1 \
    "${MACHINE_OPTS[@]}" "${TEST_OPTS[@]}" "${OPTS[@]}"
say "Done. Detections are in $RESULTS/inference"
