#!/usr/bin/env bash
# Compiles the CUDA extension for sm_80 and sm_90 and loads it, on machines without a GPU too. Needs nvcc, in PATH or below
# CUDA_HOME, and the environment that setup.sh makes. What has not changed since the last time is not compiled again.
#
#   bash scripts/compile_cuda.sh [--jobs N] [--resources]      --resources: registers and spills of each kernel
set -eo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

find_python
exec "$PYTHON" "$ROOT/scripts/compile_cuda.py" "$@"
