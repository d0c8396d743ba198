#!/usr/bin/env bash
# The unmodified PyPI clients against the API alone; see run.py.
#   LAUF_SERVE      the program crates/api/examples/serve.rs; built by cargo where unset
#   LAUF_SDK_VENV   a virtual environment to use and keep; sdk in the target folder where unset
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=${REPO:-$(cd "$here/../.." && pwd)}
target=${CARGO_TARGET_DIR:-$root/target}
venv=${LAUF_SDK_VENV:-$target/sdk}

skip() {
  echo "SKIP sdk: $1"
  echo "0 passed, 0 failed, 1 skipped"
  exit 77
}

if ! "$venv/bin/python" -c 'import google.cloud.run_v2' 2>/dev/null; then
  command -v python3 >/dev/null || skip "python3 is not installed"
  python3 -m venv "$venv" >&2 || skip "python3 cannot make a virtual environment: install python3-venv"
  "$venv/bin/python" -m pip install -q --disable-pip-version-check 'google-cloud-run==0.16.*' requests >&2 \
    || skip "google-cloud-run cannot be had from the package index"
fi

if [ -z "${LAUF_SERVE:-}" ]; then
  LAUF_SERVE=$target/debug/examples/serve
  # Under sudo, what the Rust tests built is there; cargo would leave files of root's behind.
  if [ -z "${SUDO_UID:-}" ] && command -v cargo >/dev/null; then
    (cd "$root" && CARGO_TARGET_DIR=$target cargo build -q -p lauf-api --example serve >&2)
  fi
fi
[ -x "$LAUF_SERVE" ] || skip "there is no $LAUF_SERVE: cargo build -p lauf-api --example serve"
exec "$venv/bin/python" "$here/run.py" "$LAUF_SERVE"
