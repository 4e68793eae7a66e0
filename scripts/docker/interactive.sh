#!/usr/bin/env bash
# Opens a shell in a new container with the data and the results mounted; leaving it removes the container.
#
#   bash scripts/docker/interactive.sh DATA [RESULTS]
#
# DATA: the folder with annotations/, train2017/ and val2017/, seen as /datasets/data. RESULTS: what is written to /results
# stays in this folder (default ./results). IMAGE, DOCKER_GPU_FLAGS: see docs/docker.md.
# shellcheck source=scripts/docker/docker_lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/docker_lib.sh"

[[ $# -ge 1 && $# -le 2 && "${1:-}" != -* ]] || die "Usage: bash scripts/docker/interactive.sh DATA [RESULTS]"
need_docker
mkdir -p -- "${2:-results}" || die "The result folder '${2:-results}' cannot be made."
data="$(absolute "$1" "the data")"
results="$(absolute "${2:-results}" "the results")"
exec docker run ${GPU_FLAGS[@]+"${GPU_FLAGS[@]}"} -v "$data:/datasets/data" -v "$results:/results" --rm \
    --name=maskrcnn_interactive --shm-size=10g --ulimit memlock=-1 --ulimit stack=67108864 --ipc=host -t -i "$IMAGE" bash
