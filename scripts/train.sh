#!/usr/bin/env bash
# Trains, evaluates, and keeps everything in one folder. A restarted command goes on where the last one stopped.
#
#   bash scripts/train.sh [CONFIG.yaml] [--skip-test ...] [KEY VALUE]...
#
# From the environment:
#   GPU      number of processes, one a GPU (default: up to 8 of the GPUs present; 1 without CUDA)
#   CONFIG   the config file, when it is not the first argument (default: the 8-GPU Mask R-CNN R-50-FPN job)
#   RESULTS  where checkpoints, logs and results go (default /results, or ./results where / is not writable)
#   DATA_DIR where the data sets are (default: the config's DATASETS.DATA_DIR)
#   DTYPE    float16 (default with CUDA), bfloat16, float32 (default without)
#   NHWC     True (default) or False: memory layout, where the processor is as fast in it
#   HYBRID   True or False: loader that decodes on the GPU (default True with CUDA)
# Several nodes, the same command on each; docs/deployment.md has the rest:
#   NNODES       number of nodes, or MIN:MAX where they may come and go (default 1)
#   MASTER_ADDR  name or address of the first node, the same everywhere; MASTER_PORT (default 29500)
#   NODE_RANK    number of this node, from 0 (default: the owner of MASTER_ADDR is 0)
#   MAX_RESTARTS how often a failed job starts again from its last checkpoint (default 3; 0 with one node)
set -eo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

choose_config configs/e2e_mask_rcnn_R_50_FPN_1x.yaml "$@"
set_up tensorboard
choose_nodes
require_data TRAIN TEST -- "${OPTS[@]}"
choose_results
choose_device 8
say "Training $CONFIG; results and joblog.log go to $RESULTS"
launch train_net.py "${FLAGS[@]}" OUTPUT_DIR "$RESULTS" "${MACHINE_OPTS[@]}" "${OPTS[@]}"
say "Done. Checkpoints, log and scores are in $RESULTS"
if [[ "$CONFIG" == */demo/* ]] && is_first_node; then
    "$PYTHON" "$ROOT/scripts/show_predictions.py" "$RESULTS"
    say "What the model finds on six pictures that it has not seen: $RESULTS/predictions.jpg"
fi
