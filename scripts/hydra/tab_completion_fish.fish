# Completion of Hydra's settings by Tab, in this shell: source scripts/hydra/tab_completion_fish.fish tools/train_hydra.py
#
# Then: python tools/train_hydra.py hparams.<Tab>
set -l program tools/train_hydra.py
test (count $argv) -gt 0; and set program $argv[1]
python $program -sc install=fish | source
