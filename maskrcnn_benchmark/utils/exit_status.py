"""Exit statuses of the programs; docs/deployment.md lists them."""

from __future__ import annotations

MISTAKE = 2
"""Something that the user can mend: the sentence on stderr says what."""
LOST = 3
"""Another process of the run has gone; it, or the launcher, says why."""
STOPPED = 75
"""The program was told to stop and has saved its state: the same command goes on (EX_TEMPFAIL of sysexits.h)."""
