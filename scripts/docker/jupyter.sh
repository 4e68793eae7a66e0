#!/usr/bin/env bash
# Serves notebooks with JupyterLab, in the container that run.sh started: http://localhost:8888
#
#   bash scripts/docker/jupyter.sh [PORT]
#
# JUPYTER_TOKEN: what a visitor has to type; set, but empty: nothing, as published. Without it one is made up and printed.
# shellcheck source=scripts/docker/docker_lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/docker_lib.sh"

need_docker
port="$(port_of "${1:-}" 8888)"
options=()
if [[ -z "${JUPYTER_TOKEN+set}" ]]; then
    JUPYTER_TOKEN="$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')"
    echo "http://localhost:$port/lab?token=$JUPYTER_TOKEN"
elif [[ -z "$JUPYTER_TOKEN" ]]; then
    options=(--IdentityProvider.token=)
    echo "Warning: JupyterLab starts without a token. Whoever reaches port $port runs any program in the container, with" \
        "your data and secrets." >&2
fi
export JUPYTER_TOKEN # which the server reads by itself, so that it stands in no list of processes
exec docker exec -itd --env=JUPYTER_TOKEN "$CONTAINER" \
    jupyter-lab --no-browser "--port=$port" --ip=0.0.0.0 --allow-root ${options[@]+"${options[@]}"}
