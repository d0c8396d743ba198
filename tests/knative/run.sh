#!/usr/bin/env bash
# The unmodified kubectl, and kn where there is one, against the whole platform; see run.py.
exec python3 "$(dirname "$0")/run.py"
