#!/usr/bin/env bash
# Whether a container can still do its work: the GPUs that it was given answer, and results can be written.
# A driver that was updated, or a daemon that was reloaded, takes the GPUs from running containers without a word.
set -euo pipefail

if command -v nvidia-smi >/dev/null && ! nvidia-smi -L 2>&1 | grep -q '^GPU '; then
    echo "nvidia-smi finds no GPU any more; start the container again"
    exit 1
fi
results="${RESULTS:-/results}"
if [[ -d "$results" && ! -w "$results" ]]; then
    echo "$results cannot be written by user $(id -u)"
    exit 1
fi
if [[ -d "$results" ]] && (($(df -Pk "$results" | awk 'NR == 2 { print $4 }') < 1048576)); then
    echo "less than 1 GB is free below $results"
    exit 1
fi
