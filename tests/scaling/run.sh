#!/usr/bin/env bash
# How many instances there are, and when: bursts, ramps, idle times, splits, limits, busy CPUs, long streams. See run.py.
set -euo pipefail
cd "$(dirname "$0")"
exec python3 run.py "$@"
