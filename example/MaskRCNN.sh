#!/usr/bin/env bash
# dataset: coco2017-min
# 2 GPUs, 2 images each.
# Sends a training to a queue of ClearML; docs/clearml.md. From the environment:
#   DATASET_ID   of ClearML (needed): annotations/, train2017/ and val2017/
#   REGISTRY, IMAGE, QUEUE, BRANCH, DOCKER_ARGS, CONFIG, DATASET_PATH, NPROC_PER_NODE   as below
#   OPTS         more config keys and values, "SOLVER.MAX_ITER 100"
#   OUTPUT_URI   where the model goes (default: ClearML's file server)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

CONFIG="${CONFIG:-configs/quick_schedules/e2e_mask_rcnn_R_50_FPN_quick.yaml}"
DATASET_PATH="${DATASET_PATH:-data/coco}"
DATASET_KEYS="${DATASET_KEYS-DATASETS.TRAIN coco_2017_train DATASETS.TEST coco_2017_val}"
IMAGE="${IMAGE:-${REGISTRY:-registry.example.com/team}/mask_rcnn:latest}"

# The image holds all packages: the agent must not install others beside its PyTorch.
clearml-task --project clearml-example-project \
    --name "MaskRCNN_$(basename "$CONFIG" .yaml)" \
    --script tools/clearml_train.py \
    --docker "$IMAGE" \
    --docker_args="${DOCKER_ARGS:---shm-size=8gb}" \
    --skip-python-env-install \
    --branch "${BRANCH:-main}" --queue "${QUEUE:-gpu01}" \
    ${OUTPUT_URI:+--output-uri "$OUTPUT_URI"} \
    --args dataset_id="${DATASET_ID:?names a data set of ClearML, such as coco2017-min or voc0712-min}" \
    dataset_path="$DATASET_PATH" \
    config="$CONFIG" \
    opts="$DATASET_KEYS${DATASET_KEYS:+${OPTS:+ }}${OPTS:-}" \
    standalone=True nproc_per_node="${NPROC_PER_NODE:-2}"
