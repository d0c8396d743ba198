#!/usr/bin/env bash
# Google's own Python clients for Pub/Sub, Scheduler, Tasks and Eventarc, unmodified, and gcloud, against the whole platform; see pubsub.py,
# scheduler.py, tasks.py and eventarc.py; and those of messages once more with NATS JetStream, see nats.py.
#   LAUF_BIN          the program; target/debug/lauf where unset
#   LAUF_NATS_SERVER  a NATS server of 2.10 or later; nats-server where unset
#   LAUF_EVENTS_VENV  a virtual environment to use and keep; events in the target folder where unset
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=${REPO:-$(cd "$here/../.." && pwd)}
target=${CARGO_TARGET_DIR:-$root/target}
export LAUF_EVENTS_VENV=${LAUF_EVENTS_VENV:-$target/events}
venv=$LAUF_EVENTS_VENV
export LAUF_BIN=${LAUF_BIN:-$target/debug/lauf}
passed=0 failed=0 skipped=0

skip() {
  echo "SKIP events: $1"
  echo "0 passed, 0 failed, 1 skipped"
  exit 77
}

[ -x "$LAUF_BIN" ] || skip "there is no $LAUF_BIN: cargo build --workspace"
why=$("$here/clients.sh") || skip "$why"

for stories in pubsub scheduler tasks eventarc nats; do
  said=$("$venv/bin/python" "$here/$stories.py" "$@" 2>&1)
  sum=$(tail -n 1 <<<"$said")
  if [[ $sum =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed,\ ([0-9]+)\ skipped$ ]]; then
    sed '$d' <<<"$said"
    passed=$((passed + BASH_REMATCH[1])) failed=$((failed + BASH_REMATCH[2])) skipped=$((skipped + BASH_REMATCH[3]))
  else
    echo "$said"
    echo "FAIL $stories: it told no sum"
    failed=$((failed + 1))
  fi
done
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
