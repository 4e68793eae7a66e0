#!/usr/bin/env bash
# The published place of scripts/docker/stop.sh.
set -euo pipefail
exec bash "$(dirname "${BASH_SOURCE[0]}")/../scripts/docker/stop.sh" "$@"
