#!/usr/bin/env bash
# Fetches the ImageNet weights of ResNet-50 that the published configs start from, and checks them.
#
#   bash download_weights.sh [DIR]      default: the current folder
#
# An interrupted download goes on; what is there and intact is not fetched again.
# WEIGHTS_URL: another place to fetch from.
set -euo pipefail

HERE="$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)"
# shellcheck source=scripts/download_lib.sh
source "$HERE/scripts/download_lib.sh"
WEIGHTS_URL="${WEIGHTS_URL:-https://dl.fbaipublicfiles.com/detectron/ImageNetPretrained/MSRA}"

if (($# > 1)) || [[ "${1:-}" == -* ]]; then
    echo "Usage: bash download_weights.sh [DIR]" >&2
    exit 2
fi
need md5sum
mkdir -p -- "${1:-.}"
cd -- "${1:-.}"
if ! is_intact "$HERE/weights.md5" R-50.pkl; then
    require_room $(($(size_of "$WEIGHTS_URL/R-50.pkl") - $(bytes_in R-50.pkl)))
    fetch "$WEIGHTS_URL/R-50.pkl" R-50.pkl
fi
if ! is_intact "$HERE/weights.md5" R-50.pkl; then
    echo "DOWNLOAD FAILED HASHCHECK: delete $PWD/R-50.pkl and run this again" >&2
    exit 1
fi
echo "DOWNLOAD PASSED: $PWD/R-50.pkl"
