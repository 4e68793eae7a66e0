#!/usr/bin/env bash
# Fetches COCO 2017 into DIR, checks it against hashes.md5 and unpacks it: 19 GB to download, as much again unpacked.
#
#   bash download_dataset.sh DIR [--part train|val|annotations ...] [verify|extract]      for example: /datasets/data
#
# --part fetches that part only, and may be given several times. An interrupted download goes on; what is there and
# intact is not fetched again. With "verify" or "extract" only that step runs.
# COCO_URL: another place to fetch from (default http://images.cocodataset.org). PYTHON: what unpacks (default python3).
set -euo pipefail

HERE="$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)"
# shellcheck source=scripts/download_lib.sh
source "$HERE/scripts/download_lib.sh"
COCO_URL="${COCO_URL:-http://images.cocodataset.org}"

path_of() { # PART
    case "$1" in
        train | val) echo "zips/${1}2017.zip" ;;
        annotations) echo "annotations/annotations_trainval2017.zip" ;;
        *) usage ;;
    esac
}

usage() {
    echo "Usage: bash download_dataset.sh DIR [--part train|val|annotations ...] [verify|extract]" >&2
    exit 2
}

check_room() {
    local part file size bytes=0
    for part in "${PARTS[@]}"; do
        file="$(path_of "$part")"
        size="$(size_of "$COCO_URL/$file")"
        # Photographs hardly shrink in an archive; annotations unpack to three and a half times its size.
        if [[ "$part" == annotations ]]; then
            bytes=$((bytes + size * 9 / 2))
        else
            bytes=$((bytes + size * 2))
        fi
        bytes=$((bytes - $(bytes_in "$(basename "$file")")))
    done
    require_room "$bytes"
}

download() {
    local part file name
    for part in "${PARTS[@]}"; do
        file="$(path_of "$part")"
        name="$(basename "$file")"
        if is_intact "$HERE/hashes.md5" "$name"; then
            echo "$name is there already"
        else
            fetch "$COCO_URL/$file" "$name"
        fi
    done
}

verify() {
    local part name
    local failed=()
    for part in "${PARTS[@]}"; do
        name="$(basename "$(path_of "$part")")"
        if is_intact "$HERE/hashes.md5" "$name"; then echo "$name: OK"; else failed+=("$name"); fi
    done
    if ((${#failed[@]})); then
        echo "DOWNLOAD FAILED HASHCHECK: ${failed[*]} in $PWD; delete them and run this again" >&2
        exit 1
    fi
    echo "DOWNLOAD PASSED"
}

extract() {
    local part name
    for part in "${PARTS[@]}"; do
        name="$(basename "$(path_of "$part")")"
        "$PYTHON" "$HERE/scripts/unpack_zip.py" "$name" . || {
            echo "$PWD/$name cannot be unpacked; run this again without \"extract\"." >&2
            exit 1
        }
    done
    echo "EXTRACTION COMPLETE"
}

DIR="" STEP=all PARTS=()
while (($#)); do
    case "$1" in
        --part)
            PARTS+=("${2:-}")
            path_of "${2:-}" >/dev/null
            shift
            ;;
        verify | extract) STEP="$1" ;;
        -*) usage ;;
        *)
            [[ -z "$DIR" ]] || usage
            DIR="$1"
            ;;
    esac
    shift
done
[[ -n "$DIR" ]] || usage
((${#PARTS[@]})) || PARTS=(train val annotations)
need md5sum
need_python
mkdir -p -- "$DIR"
cd -- "$DIR"
case "$STEP" in
    all)
        check_room
        download
        verify
        extract
        ;;
    *) "$STEP" ;;
esac
