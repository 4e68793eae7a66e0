"""Huge pages: what the kernel says that a process has."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import sys
from maskrcnn_benchmark.utils.allocator import reserve_huge_pages
if sys.argv[1] == "reserve" and not reserve_huge_pages():
    sys.exit("no effect")
def read(field):
    for line in open("/proc/self/smaps_rollup"):
        if line.startswith(field):
            return int(line.split()[1])
before, resident = read("AnonHugePages"), read("Rss")
block = bytearray(64 << 20)
del block
print(read("AnonHugePages") - before, read("Rss") - resident)
"""
SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")


@pytest.mark.skipif(not SETTING.exists() or "[madvise]" not in SETTING.read_text(), reason="huge pages only on demand")
def test_reserved_memory_is_of_huge_pages_and_only_what_was_used():
    done = {
        mode: subprocess.run([sys.executable, "-c", CODE, mode], capture_output=True, text=True)
        for mode in ("default", "reserve")
    }
    if "no effect" in done["reserve"].stderr:
        pytest.skip("the C library or the limits do not allow it")
    huge, resident = map(int, done["reserve"].stdout.split())
    assert huge >= 62 << 10
    assert resident < 80 << 10
    assert int(done["default"].stdout.split()[0]) < 2 << 10
