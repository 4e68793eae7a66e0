#!/usr/bin/env bash
# What the two download scripts share: fetching with resume, checksums, room on the disk. It is sourced, not run.
set -euo pipefail

need() { # TOOL...
    local tool
    for tool in "$@"; do
        command -v "$tool" >/dev/null || { echo "$tool is needed and was not found; install it first." >&2; exit 1; }
    done
    command -v wget >/dev/null || command -v curl >/dev/null || {
        echo "wget or curl is needed and neither was found; install one of them first." >&2
        exit 1
    }
}

fetch() { # URL FILE: goes on with what is there; a file of full size is left to the checksum
    local bytes
    bytes="$(bytes_in "$2")"
    if ((bytes > 0 && bytes == $(size_of "$1"))); then return; fi
    if command -v wget >/dev/null; then
        wget -c -O "$2" "$1"
    else
        curl --fail --location --retry 5 --continue-at - --output "$2" "$1"
    fi || {
        echo "$1 cannot be fetched; run this again to go on from where it stopped." >&2
        exit 1
    }
}

is_intact() { # HASHES FILE: whether the file is there with the hash that HASHES lists
    [[ -f "$2" ]] && grep "  $(basename "$2")\$" "$1" | md5sum --check --status - 2>/dev/null
}

size_of() { # URL: its size in bytes as the server says, 0 when it does not
    local headers
    if command -v wget >/dev/null; then
        headers="$(wget --spider --server-response --tries=1 "$1" 2>&1 || true)"
    else
        headers="$(curl --silent --location --head "$1" || true)"
    fi
    tr -d '\r' <<<"$headers" | awk 'tolower($1) == "content-length:" { size = $2 } END { print size + 0 }'
}

bytes_in() { # FILE: its size, 0 when it is not there
    if [[ -f "$1" ]]; then wc -c <"$1"; else echo 0; fi
}

require_room() { # BYTES: ends here unless the disk of the current folder has as many free
    local bytes="$1" free
    free="$(df -Pk . | awk 'NR == 2 { print $4 }')"
    if ((bytes / 1024 > free)); then
        echo "$PWD needs $((bytes / 1048576)) MB more, but has $((free / 1024)) MB free; choose another folder, or" \
            "fetch less." >&2
        exit 1
    fi
}
