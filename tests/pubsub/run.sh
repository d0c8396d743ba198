#!/usr/bin/env bash
# The unmodified google-cloud-pubsub of PyPI, and gcloud, against the whole platform; see run.py.
#   LAUF_BIN          the program; target/debug/lauf where unset
#   LAUF_PUBSUB_VENV  a virtual environment to use and keep; pubsub in the target folder where unset
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=${REPO:-$(cd "$here/../.." && pwd)}
target=${CARGO_TARGET_DIR:-$root/target}
venv=${LAUF_PUBSUB_VENV:-$target/pubsub}
export LAUF_BIN=${LAUF_BIN:-$target/debug/lauf}

skip() {
  echo "SKIP pubsub: $1"
  echo "0 passed, 0 failed, 1 skipped"
  exit 77
}

[ -x "$LAUF_BIN" ] || skip "there is no $LAUF_BIN: cargo build -p lauf"
if ! "$venv/bin/python" -c 'import google.cloud.pubsub_v1' 2>/dev/null; then
  command -v python3 >/dev/null || skip "python3 is not installed"
  python3 -m venv "$venv" >&2 || skip "python3 cannot make a virtual environment: install python3-venv"
  "$venv/bin/python" -m pip install -q --disable-pip-version-check 'google-cloud-pubsub>=2.29,<3' requests >&2 \
    || skip "google-cloud-pubsub cannot be had from the package index"
fi
exec "$venv/bin/python" "$here/run.py"
