#!/usr/bin/env bash
# Fetches the ImageNet weights of ResNet-50 that the published configs start from, and checks them.
#
#   bash download_weights.sh [DIR]      default: the current folder
#
# WEIGHTS_URL: another place to fetch from.
set -euo pipefail

HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
WEIGHTS_URL="${WEIGHTS_URL:-https://dl.fbaipublicfiles.com/detectron/ImageNetPretrained/MSRA}"

mkdir -p "${1:-.}"
cd "${1:-.}"
if command -v wget >/dev/null; then
    wget -c -O R-50.pkl "$WEIGHTS_URL/R-50.pkl"
else
    curl --fail --location --continue-at - --output R-50.pkl "$WEIGHTS_URL/R-50.pkl"
fi
if ! md5sum -c "$HERE/weights.md5"; then
    echo "DOWNLOAD FAILED HASHCHECK: delete $PWD/R-50.pkl and run this again" >&2
    exit 1
fi
echo "DOWNLOAD PASSED: $PWD/R-50.pkl"
