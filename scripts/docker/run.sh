#!/usr/bin/env bash
# Starts a container in the background with the current folder at /workspace, and COMMAND in it, fish by default.
#
#   bash scripts/docker/run.sh [COMMAND]...      then attach.sh, exec.sh, tensorboard.sh, mlflow.sh, jupyter.sh, stop.sh
#
# DATASET: the folder of the data on this machine, seen as /dataset. RESULTS: seen as /results (default ./results).
# MOUNTS: further folders, as "HERE:INSIDE HERE:INSIDE", for a program that looks for its data at a place of its own.
# Variables inside come from .env, which is made from .env.default. PORTS (default "5000 6006 8888") are open to this
# machine alone; BIND=0.0.0.0 opens them to the network. IMAGE, CONTAINER, DOCKER_GPU_FLAGS: see docs/docker.md.
# shellcheck source=scripts/docker/docker_lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/docker_lib.sh"

need_docker
[[ -f .env ]] || die "There is no file .env in $PWD. Make it from the one that is there, and fill it in: cp .env.default .env"
mkdir -p -- "${RESULTS:-results}" || die "The result folder '${RESULTS:-results}' cannot be made; choose another one with RESULTS=."
here="$(absolute . "the program")"
results="$(absolute "${RESULTS:-results}" "the results")"
mounts=("--volume=$here:/workspace" "--volume=$results:/results")
if [[ -n "${DATASET:-}" ]]; then
    data="$(absolute "$DATASET" "the data")"
    mounts+=("--volume=$data:/dataset")
else
    echo "DATASET is not set, so no data are mounted; it names their folder on this machine." >&2
fi
read -ra pairs <<<"${MOUNTS:-}"
for pair in ${pairs[@]+"${pairs[@]}"}; do
    [[ "$pair" == *:/* ]] || die "MOUNTS: '$pair' is no FOLDER:/PLACE, such as /data/parking:/DATA."
    more="$(absolute "${pair%%:*}" "MOUNTS")"
    mounts+=("--volume=$more:${pair#*:}")
done
read -ra numbers <<<"${PORTS-6006 5000 8888}"
ports=()
for number in ${numbers[@]+"${numbers[@]}"}; do
    number="$(port_of "$number" 6006)"
    ports+=("-p${BIND:-127.0.0.1}:$number:$number")
done
[[ $# -gt 0 ]] || set -- fish
exec docker run -d --init ${ports[@]+"${ports[@]}"} --rm -it ${GPU_FLAGS[@]+"${GPU_FLAGS[@]}"} --ipc=host \
    "--name=$CONTAINER" --env-file=.env "${mounts[@]}" --workdir=/workspace "$IMAGE" "$@"
