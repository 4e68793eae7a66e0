#!/usr/bin/env bash
# What the two download scripts share: fetching with resume, checksums, room on the disk. It is sourced, not run.
set -euo pipefail
unset CDPATH # with which "cd data" may lead to another folder of that name

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

need_python() { # sets PYTHON, which unpacks archives with nothing but its standard library
    PYTHON="${PYTHON:-$(command -v python3 || command -v python || true)}"
    command -v "$PYTHON" >/dev/null || {
        echo "python3 is needed and was not found; install it, or name one: PYTHON=/path/to/python3" >&2
        exit 1
    }
}

fetch() { # URL FILE: goes on with what is there; a file of full size is left to the checksum
    local bytes
    bytes="$(bytes_in "$2")"
    if ((bytes > 0 && bytes == $(size_of "$1"))); then return; fi
    if command -v wget >/dev/null; then
        wget -c -T 60 -O "$2" -- "$1"
    else
        curl --fail --location --proto =http,https --retry 5 --connect-timeout 60 --speed-limit 1024 --speed-time 60 \
            --continue-at - --output "$2" --url "$1"
    fi || {
        echo "$1 cannot be fetched; run this again to go on from where it stopped." >&2
        exit 1
    }
}

is_intact() { # HASHES FILE: whether the file is there with the hash that HASHES lists
    [[ -f "$2" ]] && grep -- "  $(basename -- "$2")\$" "$1" | md5sum --check --status - 2>/dev/null
}

size_of() { # URL: its size in bytes as the server says, 0 when it does not
    local headers
    if command -v wget >/dev/null; then
        headers="$(wget --spider --server-response -T 60 --tries=1 -- "$1" 2>&1 || true)"
    else
        headers="$(curl --silent --location --proto =http,https --connect-timeout 60 --max-time 60 --head --url "$1" || true)"
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
