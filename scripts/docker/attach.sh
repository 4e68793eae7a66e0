#!/usr/bin/env bash
# Goes back to the command that run.sh started; when that ends, so does the container. Ctrl-P Ctrl-Q leaves it running.
#
#   bash scripts/docker/attach.sh
# shellcheck source=scripts/docker/docker_lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/docker_lib.sh"

need_docker
exec docker attach "$CONTAINER"
