#!/usr/bin/env bash
# Serves the runs in /workspace/mlruns with MLflow, in the container that run.sh started: http://localhost:5000
#
#   bash scripts/docker/mlflow.sh [PORT]      MLRUNS: another store, such as sqlite:///mlflow.db
# shellcheck source=scripts/docker/docker_lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/docker_lib.sh"

need_docker
port="$(port_of "${1:-}" 5000)"
# MLflow 3 serves folders only when it is told so by this variable.
exec docker exec -itd --env=MLFLOW_ALLOW_FILE_STORE=true "$CONTAINER" \
    mlflow server "--backend-store-uri=${MLRUNS:-./mlruns}" --host=0.0.0.0 "--port=$port"
