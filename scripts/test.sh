#!/usr/bin/env bash
# Runs the tests; the core suite by default, which takes at most ten minutes on two cores.
#
#   bash scripts/test.sh [--all] [PYTEST ARGUMENT]...      --all: the slow ones and those with optional packages too
#                                                          (which it installs: DALI, 0.2 GB to download, 0.6 GB on disk)
#
# TIME_LIMIT: seconds after which a core suite counts as failed (default: it is only reported).
# MASKRCNN_TEST_DATA: a folder with data made by others; without it the tests that read it are skipped.
set -eo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

extras=(test)
for argument in "$@"; do
    if [[ "$argument" == --all && "$(uname -s)" == Linux ]]; then
        extras+=(dali)
    fi
done
set_up "${extras[@]}"
cd "$ROOT"
SECONDS=0
"$PYTHON" -m pytest "$@"
say "The tests took $SECONDS s."
if [[ $# -eq 0 && -n "${TIME_LIMIT:-}" && "$SECONDS" -gt "$TIME_LIMIT" ]]; then
    die "That is more than the limit of $TIME_LIMIT s: make the slowest of them faster, or mark them slow."
fi
