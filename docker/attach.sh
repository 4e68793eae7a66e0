#!/usr/bin/env bash
# The published place of scripts/docker/attach.sh.
set -euo pipefail
exec bash "$(dirname "${BASH_SOURCE[0]}")/../scripts/docker/attach.sh" "$@"
