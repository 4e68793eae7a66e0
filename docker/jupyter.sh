#!/usr/bin/env bash
# The published place of scripts/docker/jupyter.sh.
set -euo pipefail
exec bash "$(dirname "${BASH_SOURCE[0]}")/../scripts/docker/jupyter.sh" "$@"
