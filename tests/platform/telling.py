"""How stories are told: one line for each thing that can be right or wrong by itself, and their sum."""

import contextlib
import time
import traceback

from platform_under_test import Failed

TALLY = {"passed": 0, "failed": 0, "skipped": 0}


def passed(what):
    """Counts one that is as it should be."""
    TALLY["passed"] += 1
    print(f"ok   {what}", flush=True)


def failed(what, why):
    """Counts one that is not."""
    TALLY["failed"] += 1
    print(f"FAIL {what}: {' '.join(str(why).split())[:1200]}", flush=True)


def skipped(what, why):
    """Counts one that cannot be told here."""
    TALLY["skipped"] += 1
    print(f"SKIP {what}: {why}", flush=True)


@contextlib.contextmanager
def step(what):
    """One thing that can be right or wrong by itself."""
    began = time.monotonic()
    try:
        yield
    except Exception as error:  # Whatever goes wrong is a failure, and the next thing must still be told.
        failed(what, error if isinstance(error, Failed) else traceback.format_exc(limit=3))
    else:
        passed(f"{what} ({time.monotonic() - began:.1f} s)")


def expect(what, got, wanted):
    """Compares, with words for the one who reads the failure."""
    if got != wanted:
        raise Failed(f"{what}: got {got!r}, wanted {wanted!r}")
