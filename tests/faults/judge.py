#!/usr/bin/env python3
"""The judge: reads a history and says which promises were broken.

    tests/faults/judge.py HISTORY
"""

import sys

import history
import laws_of_calls
import laws_of_executions
import laws_of_messages

LAWS = (laws_of_messages, laws_of_calls, laws_of_executions)


def judge(lines):
    """All broken promises of a whole history, in words."""
    return [breach for laws in LAWS for breach in laws.judge(lines)]


if __name__ == "__main__":
    breaches = judge(history.read(sys.argv[1]))
    print("\n".join(breaches) or "no promise was broken")
    sys.exit(bool(breaches))
