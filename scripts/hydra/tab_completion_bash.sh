#!/usr/bin/env bash
# Completion of Hydra's settings by Tab, in this shell: source scripts/hydra/tab_completion_bash.sh tools/train_hydra.py
#
# Then: python tools/train_hydra.py hparams.<Tab>
eval "$(python "${1:-tools/train_hydra.py}" -sc install=bash)"
