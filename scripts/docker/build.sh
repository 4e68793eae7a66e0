#!/usr/bin/env bash
# Builds the image; words are passed on to docker build, such as --target clearml or --build-arg TZ=Etc/UTC.
#
#   bash scripts/docker/build.sh [DOCKER BUILD OPTION]...
#
# IMAGE: its name (default nvidia_joc_maskrcnn_pt). CPU=1: the plain Python image, for machines without an NVIDIA GPU.
# AS_ME=1: it runs as you instead of as root, so that what it writes is yours.
# shellcheck source=scripts/docker/docker_lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/docker_lib.sh"

need_docker
cd "$ROOT"
file=Dockerfile
[[ "${CPU:-0}" == 0 ]] || file=Dockerfile.cpu
user=()
if [[ "${AS_ME:-0}" != 0 ]]; then
    user=(--build-arg "UID=$(id -u)" --build-arg "GID=$(id -g)" --build-arg "USER=$(id -un)")
fi
exec docker build --rm -t "$IMAGE" . -f "$file" ${user[@]+"${user[@]}"} "$@"
