#!/usr/bin/env bash
# The unmodified PyPI clients against the API alone; see run.py.
#   LAUF_SERVE      the program crates/api/examples/serve.rs; built by cargo where unset
#   LAUF_SDK_VENV   a virtual environment to use and keep; target/sdk where unset
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$here/../..
venv=${LAUF_SDK_VENV:-$root/target/sdk}

skip() {
  echo "SKIP sdk: $1"
  echo "0 passed, 0 failed, 1 skipped"
  exit 77
}

if ! "$venv/bin/python" -c 'import google.cloud.run_v2' 2>/dev/null; then
  python3 -m venv "$venv" >&2 || skip "python3 cannot make a virtual environment: install python3-venv"
  "$venv/bin/python" -m pip install -q --disable-pip-version-check 'google-cloud-run==0.16.*' requests >&2 \
    || skip "google-cloud-run cannot be had from the package index"
fi
if [ -z "${LAUF_SERVE:-}" ]; then
  command -v cargo >/dev/null || skip "there is no cargo; set LAUF_SERVE to the built example"
  LAUF_SERVE=$(cd "$root" && cargo build -q -p lauf-api --example serve --message-format=json \
    | sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -1)
fi
exec "$venv/bin/python" "$here/run.py" "$LAUF_SERVE"
