#!/usr/bin/env bash
# The unmodified gcloud against the whole platform; see run.py.
exec python3 "$(dirname "$0")/run.py"
