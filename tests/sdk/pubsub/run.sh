#!/usr/bin/env bash
# Google's own Pub/Sub clients, unmodified, in Python, Node.js and Go: the same stories told to Google's Pub/Sub emulator and to Lauf; see
# run.py. What the emulator is known to do otherwise is in deviations.py.
#   LAUF_BIN          the program `lauf`; target/debug/lauf where unset
#   PUBSUB_EMULATOR   Google's emulator, the program; looked for beside gcloud where unset
# What the clients need is kept in the target folder.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=${REPO:-$(cd "$here/../../.." && pwd)}
target=${CARGO_TARGET_DIR:-$root/target}
export LAUF_BIN=${LAUF_BIN:-$target/debug/lauf}
skipped=0

skip() {
  echo "SKIP $1: $2"
  skipped=$((skipped + 1))
}

python_client() {
  venv=$target/sdk-pubsub
  "$venv/bin/python" -c 'import google.cloud.pubsub_v1, grpc, requests' 2>/dev/null && return
  command -v python3 >/dev/null || { why="python3 is not installed"; return 1; }
  python3 -m venv "$venv" >&2 || { why="python3 cannot make a virtual environment: install python3-venv"; return 1; }
  "$venv/bin/python" -m pip install -q --disable-pip-version-check 'google-cloud-pubsub>=2.29,<3' requests >&2 \
    || { why="google-cloud-pubsub cannot be had from the package index"; return 1; }
}

node_client() {
  command -v npm >/dev/null || { why="npm is not installed"; return 1; }
  modules=$target/sdk-pubsub-node/node_modules
  [ -d "$modules/@google-cloud/pubsub" ] && return
  mkdir -p "$target/sdk-pubsub-node"
  (cd "$target/sdk-pubsub-node" && npm init -y >/dev/null && npm install --silent --no-audit --no-fund '@google-cloud/pubsub@^5' >&2) \
    || { why="@google-cloud/pubsub cannot be had from npm's registry"; return 1; }
}

go_client() {
  command -v go >/dev/null || { why="go is not installed"; return 1; }
  (cd "$here/go" && go build -o "$target/sdk-pubsub-go" . >&2) || { why="cloud.google.com/go/pubsub cannot be had or built"; return 1; }
}

# gcloud's components lie beside it, wherever it is.
emulator() {
  command -v java >/dev/null || { why="java is not installed"; return 1; }
  local gcloud program=${PUBSUB_EMULATOR:-}
  gcloud=$(readlink -f "$(command -v gcloud || echo /usr/lib/google-cloud-sdk/bin/gcloud)")
  program=${program:-${gcloud%/bin/gcloud}/platform/pubsub-emulator/bin/cloud-pubsub-emulator}
  [ -x "$program" ] || { why="Google's Pub/Sub emulator is not installed: gcloud components install pubsub-emulator"; return 1; }
  asked+=("--emulator=$program")
}

asked=() clients=()
# The stories' judge is Python too: without it nothing can be told.
if ! python_client; then
  skip "pubsub" "$why"
  echo "0 passed, 0 failed, 1 skipped"
  exit 77
fi
clients+=("python=$venv/bin/python $here/python/tell.py")
if node_client; then clients+=("node=node $here/node/tell.mjs $modules"); else skip "pubsub by node" "$why"; fi
if go_client; then clients+=("go=$target/sdk-pubsub-go"); else skip "pubsub by go" "$why"; fi
if ! emulator; then skip "pubsub to Google's emulator" "$why"; fi
if [ ! -x "$LAUF_BIN" ]; then
  skip "pubsub to Lauf" "there is no $LAUF_BIN: cargo build --workspace"
elif [ "$(id -u)" != 0 ]; then
  skip "pubsub to Lauf" "a platform needs root"
else
  asked+=(--lauf)
fi
said=$("$venv/bin/python" "$here/run.py" "${asked[@]}" "${clients[@]}" 2>&1)
sum=$(tail -n 1 <<<"$said")
if [[ $sum =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed,\ 0\ skipped$ ]]; then
  sed '$d' <<<"$said"
  echo "${BASH_REMATCH[1]} passed, ${BASH_REMATCH[2]} failed, $skipped skipped"
  [ "${BASH_REMATCH[2]}" = 0 ]
else
  echo "$said"
  echo "0 passed, 1 failed, $skipped skipped"
  exit 1
fi
