"""Time on one GPU in terms of another: what tools/time_budget.py computes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

from maskrcnn_benchmark.apps.errors import user_errors
from maskrcnn_benchmark.apps.time_budget import read_run_speed


def convert_budget(hours: float, *, reference_seconds: float, local_seconds: float) -> float:
    """Hours here that do as much as so many hours there.

    Args:
        hours: of the budget on the reference machine.
        reference_seconds: that some work, such as an epoch, takes there.
        local_seconds: that the same work takes here.

    Raises:
        ValueError: a number is not positive.
    """
    for value in (hours, reference_seconds, local_seconds):
        if not value > 0:
            raise ValueError(f"hours and seconds must be above 0, got {value}")
    return hours * local_seconds / reference_seconds


def iterations_within(hours: float, *, seconds_per_iteration: float, other_minutes: float = 0.0) -> int:
    """Iterations for which there is time.

    Args:
        hours: of the budget.
        seconds_per_iteration: measured.
        other_minutes: for data, checkpoints and evaluation.

    Raises:
        ValueError: a number is out of range.
    """
    if not (hours > 0 and seconds_per_iteration > 0 and other_minutes >= 0):
        raise ValueError(
            f"hours and seconds must be above 0, minutes not below, got {hours}, {seconds_per_iteration} and "
            f"{other_minutes}"
        )
    return max(int((hours * 3600 - other_minutes * 60) / seconds_per_iteration), 0)


def report(args: argparse.Namespace) -> Iterator[str]:
    """The lines that answer a command line of ``make_parser``.

    Raises:
        ValueError: nothing was asked, or half of something. OSError: the run cannot be read.
    """
    epochs = (args.reference_epoch_seconds, args.local_epoch_seconds)
    hours = args.reference_hours
    if all(epochs):
        hours = convert_budget(hours, reference_seconds=epochs[0], local_seconds=epochs[1])
        yield f"{hours:.2f}"
    elif any(epochs):
        raise ValueError("give both --reference-epoch-seconds and --local-epoch-seconds")
    speed = read_run_speed(args.run) if args.run else args.seconds_per_iteration
    if speed:
        count = iterations_within(hours, seconds_per_iteration=speed, other_minutes=args.other_minutes)
        yield f"{count} iterations of {speed:.4g} s in {hours:.2f} h, {args.other_minutes:g} min of them for the rest"
    elif not all(epochs):
        raise ValueError("give the seconds of an epoch there and here, --seconds-per-iteration, or --run")


@user_errors()
def main(args: argparse.Namespace) -> None:
    """Run the program.

    Args:
        args: parsed options of ``make_parser``.
    """
    sys.stdout.writelines(f"{line}\n" for line in list(report(args)))
