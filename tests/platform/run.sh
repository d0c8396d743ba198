#!/usr/bin/env bash
# The platform as its users meet it: from zero and back, killed at any moment, with bad apps and bad clients. See run.py.
set -euo pipefail
cd "$(dirname "$0")"
exec python3 run.py "$@"
