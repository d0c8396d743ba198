#!/usr/bin/env bash
# Google's own client libraries, unmodified: Python, Node.js and Go over gRPC and over REST against the API alone, and Python over
# gRPC through the one port of a whole platform, and jobs and worker pools over both; see run.py, run.mjs, go/main.go, door.py and
# run_jobs.py. And those of Pub/Sub, told to Google's emulator and to Lauf; see pubsub/run.sh.
#   LAUF_SERVE   the program crates/api/examples/serve.rs; built by cargo where unset
#   LAUF_BIN     the program `lauf`, for door.py and run_jobs.py; skipped where unset
# What the clients need is kept in the target folder.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=${REPO:-$(cd "$here/../.." && pwd)}
target=${CARGO_TARGET_DIR:-$root/target}
passed=0 failed=0 skipped=0

skip() {
  echo "SKIP $1: $2"
  skipped=$((skipped + 1))
}

# Runs one set of stories and takes its sum, the last line, out of what it prints.
tell() {
  local said sum
  said=$("$@" 2>&1)
  sum=$(tail -n 1 <<<"$said")
  if [[ $sum =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed,\ ([0-9]+)\ skipped$ ]]; then
    sed '$d' <<<"$said"
    passed=$((passed + BASH_REMATCH[1])) failed=$((failed + BASH_REMATCH[2])) skipped=$((skipped + BASH_REMATCH[3]))
  else
    echo "$said"
    echo "FAIL $*: it told no sum"
    failed=$((failed + 1))
  fi
}

python_client() {
  venv=$target/sdk
  "$venv/bin/python" -c 'import google.cloud.run_v2, grpc' 2>/dev/null && return
  command -v python3 >/dev/null || { why="python3 is not installed"; return 1; }
  python3 -m venv "$venv" >&2 || { why="python3 cannot make a virtual environment: install python3-venv"; return 1; }
  "$venv/bin/python" -m pip install -q --disable-pip-version-check 'google-cloud-run==0.16.*' requests >&2 \
    || { why="google-cloud-run cannot be had from the package index"; return 1; }
}

node_client() {
  command -v npm >/dev/null || { why="npm is not installed"; return 1; }
  [ -d "$target/sdk-node/node_modules/@google-cloud/run" ] && return
  mkdir -p "$target/sdk-node"
  (cd "$target/sdk-node" && npm init -y >/dev/null && npm install --silent --no-audit --no-fund @google-cloud/run >&2) \
    || { why="@google-cloud/run cannot be had from npm's registry"; return 1; }
}

go_client() {
  command -v go >/dev/null || { why="go is not installed"; return 1; }
  (cd "$here/go" && go build -o "$target/sdk-go" . >&2) || { why="cloud.google.com/go/run cannot be had or built"; return 1; }
}

serve=${LAUF_SERVE:-$target/debug/examples/serve}
# Under sudo, what the Rust tests built is there; cargo would leave files of root's behind.
if [ -z "${LAUF_SERVE:-}" ] && [ -z "${SUDO_UID:-}" ] && command -v cargo >/dev/null; then
  (cd "$root" && CARGO_TARGET_DIR=$target cargo build -q -p lauf-api --example serve >&2)
fi
if [ ! -x "$serve" ]; then
  skip api "there is no $serve: cargo build -p lauf-api --example serve"
else
  if python_client; then tell "$venv/bin/python" "$here/run.py" "$serve"; else skip python "$why"; fi
  if node_client; then tell node "$here/run.mjs" "$serve" "$target/sdk-node/node_modules"; else skip node "$why"; fi
  if go_client; then tell "$target/sdk-go" "$serve"; else skip go "$why"; fi
fi
if [ -z "${LAUF_BIN:-}" ]; then
  skip platform "LAUF_BIN does not say where lauf is"
elif [ "$(id -u)" != 0 ]; then
  skip platform "a platform needs root"
elif python_client; then
  tell "$venv/bin/python" "$here/door.py"
  tell "$venv/bin/python" "$here/run_jobs.py"
else
  skip platform "$why"
fi
tell bash "$here/pubsub/run.sh"
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
