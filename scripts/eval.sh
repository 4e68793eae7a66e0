#!/usr/bin/env bash
# Evaluates the newest checkpoint in RESULTS: box and mask AP on the config's test sets.
#
#   bash scripts/eval.sh [CONFIG.yaml] [KEY VALUE]...
#
# MODEL.WEIGHT FILE evaluates that file instead. The environment is that of train.sh.
set -eo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

choose_config configs/e2e_mask_rcnn_R_50_FPN_1x.yaml "$@"
set_up tensorboard
choose_nodes
require_data TEST -- "${OPTS[@]}"
choose_results
require_checkpoint
choose_device 8
say "Evaluating $CONFIG; results go to $RESULTS"
launch test_net.py "${FLAGS[@]}" OUTPUT_DIR "$RESULTS" "${MACHINE_OPTS[@]}" "${OPTS[@]}"
say "Done. Detections and scores are in $RESULTS/inference"
