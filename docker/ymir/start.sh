#!/usr/bin/env bash
# What YMIR starts, as /usr/bin/start.sh of the image: the task that /in/env.yaml names, from /in to /out.
# It takes no arguments and may be run again on the same folders.
set -euo pipefail

cd /app
# The base image's own: the starter keeps caches below /out, the one place that a task may write to.
unset XDG_CACHE_HOME
starter=(python3 tools/ymir_start.py)
# NVIDIA's entry point lets its CUDA run on older drivers. As the image's own it would print a banner before each file of
# /img-man that YMIR reads, so it is called here.
entry_point=/opt/nvidia/nvidia_entrypoint.sh
if [[ -x "$entry_point" ]]; then
    starter=("$entry_point" "${starter[@]}")
fi
exec "${starter[@]}"
