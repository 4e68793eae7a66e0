#!/usr/bin/env bash
# dataset: voc0712-min
# 2 GPUs, 2 images each; boxes only, since VOC has few masks.
# As MaskRCNN.sh, with its environment; DATASET_ID names VOC2007/ with JPEGImages/, Annotations/ and ImageSets/.
set -euo pipefail
export CONFIG="${CONFIG:-configs/pascal_voc/e2e_faster_rcnn_R_50_C4_1x_4_gpu_voc.yaml}"
export DATASET_PATH="${DATASET_PATH:-data/VOCdevkit}" DATASET_KEYS=""
exec bash "$(dirname "${BASH_SOURCE[0]}")/MaskRCNN.sh"
