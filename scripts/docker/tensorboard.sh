#!/usr/bin/env bash
# Serves the runs below /workspace with TensorBoard, in the container that run.sh started: http://localhost:6006
#
#   bash scripts/docker/tensorboard.sh [PORT]      LOGDIR: another folder inside the container, such as /results
# shellcheck source=scripts/docker/docker_lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/docker_lib.sh"

need_docker
port="$(port_of "${1:-}" 6006)"
exec docker exec -itd "$CONTAINER" tensorboard "--logdir=${LOGDIR:-.}" --host=0.0.0.0 "--port=$port"
