#!/usr/bin/env bash
# Fetches COCO 2017 into DIR, checks it against hashes.md5 and unpacks it: 19 GB to download, as much again unpacked.
#
#   bash download_dataset.sh DIR [verify|extract]      for example: /datasets/data
#
# An interrupted download goes on. With "verify" or "extract" only that step runs.
# COCO_URL: another place to fetch from (default http://images.cocodataset.org).
set -euo pipefail

HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
COCO_URL="${COCO_URL:-http://images.cocodataset.org}"
FILES=(zips/train2017.zip zips/val2017.zip annotations/annotations_trainval2017.zip)

fetch() { # URL FILE
    if command -v wget >/dev/null; then
        wget -c -O "$2" "$1"
    else
        curl --fail --location --continue-at - --output "$2" "$1"
    fi
}

download() {
    local file
    for file in "${FILES[@]}"; do
        fetch "$COCO_URL/$file" "$(basename "$file")"
    done
}

verify() {
    if md5sum -c "$HERE/hashes.md5"; then
        echo "DOWNLOAD PASSED"
    else
        echo "DOWNLOAD FAILED HASHCHECK: delete the files that are not OK in $PWD and run this again" >&2
        exit 1
    fi
}

extract() {
    local file
    for file in "${FILES[@]}"; do
        unzip -q -o "$(basename "$file")"
    done
    echo "EXTRACTION COMPLETE"
}

if [[ $# -lt 1 || ! "${2:-all}" =~ ^(all|verify|extract)$ ]]; then
    echo "Usage: bash download_dataset.sh DIR [verify|extract]" >&2
    exit 2
fi
for tool in md5sum unzip; do
    command -v "$tool" >/dev/null || { echo "$tool is needed and was not found; install it first." >&2; exit 1; }
done
mkdir -p "$1"
cd "$1"
case "${2:-all}" in
    all)
        download
        verify
        extract
        ;;
    verify) verify ;;
    extract) extract ;;
esac
