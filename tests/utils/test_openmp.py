"""What libgomp says of its settings when torch loads it."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

CODE = "from maskrcnn_benchmark.utils.openmp import share_cores; share_cores(); import torch"


def spins(**variables):
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    environment |= variables | {"OMP_DISPLAY_ENV": "verbose"}
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, env=environment, check=True)
    found = re.search(r"GOMP_SPINCOUNT = '(\d+)'", done.stderr)
    if found is None:
        pytest.skip("this torch has another OpenMP than GNU's")
    return int(found[1])


def test_threads_do_not_wait_on_the_core_for_long():
    assert spins() == 5000


@pytest.mark.parametrize(("variables", "count"), [({"GOMP_SPINCOUNT": "77"}, 77), ({"OMP_WAIT_POLICY": "passive"}, 0)])
def test_the_settings_of_the_user_stay(variables, count):
    assert spins(**variables) == count
