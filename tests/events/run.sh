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
venv=${LAUF_EVENTS_VENV:-$target/events}
export LAUF_BIN=${LAUF_BIN:-$target/debug/lauf}
passed=0 failed=0 skipped=0

skip() {
  echo "SKIP events: $1"
  echo "0 passed, 0 failed, 1 skipped"
  exit 77
}

[ -x "$LAUF_BIN" ] || skip "there is no $LAUF_BIN: cargo build --workspace"
if ! "$venv/bin/python" -c 'import google.cloud.pubsub_v1, google.cloud.scheduler_v1, google.cloud.tasks_v2, google.cloud.eventarc_v1, google.cloud.eventarc_publishing_v1, requests' 2>/dev/null; then
  command -v python3 >/dev/null || skip "python3 is not installed"
  python3 -m venv "$venv" >&2 || skip "python3 cannot make a virtual environment: install python3-venv"
  "$venv/bin/python" -m pip install -q --disable-pip-version-check \
    'google-cloud-pubsub>=2.29,<3' 'google-cloud-scheduler>=2.16,<3' 'google-cloud-tasks>=2.19,<3' \
    'google-cloud-eventarc>=1.15,<2' 'google-cloud-eventarc-publishing>=0.10,<1' requests >&2 \
    || skip "Google's clients cannot be had from the package index"
fi

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
