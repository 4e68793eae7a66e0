#!/usr/bin/env bash
# Runs COMMAND, fish by default, in the container that run.sh started.
#
#   bash scripts/docker/exec.sh [COMMAND]...
# shellcheck source=scripts/docker/docker_lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/docker_lib.sh"

need_docker
[[ $# -gt 0 ]] || set -- fish
exec docker exec -it "$CONTAINER" "$@"
