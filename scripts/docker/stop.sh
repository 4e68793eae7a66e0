#!/usr/bin/env bash
# Stops the container that run.sh started. The command that it started has two minutes to save its state; what exec.sh
# started is not told: end it first.
#
#   bash scripts/docker/stop.sh
# shellcheck source=scripts/docker/docker_lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/docker_lib.sh"

need_docker
exec docker stop -t 120 "$CONTAINER"
