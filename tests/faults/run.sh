#!/usr/bin/env bash
# kill -9 of the whole of Lauf at random moments while Google's clients, jobs and calls go on; see run.py, which takes the options.
#   LAUF_BIN          the program; target/debug/lauf where unset
#   LAUF_EVENTS_VENV  a virtual environment with Google's clients; that of tests/events in the target folder where unset
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=${REPO:-$(cd "$here/../.." && pwd)}
target=${CARGO_TARGET_DIR:-$root/target}
export LAUF_BIN=${LAUF_BIN:-$target/debug/lauf}
export LAUF_EVENTS_VENV=${LAUF_EVENTS_VENV:-$target/events}
export PYTHONPATH=$root/tests/platform:$root/tests/events PYTHONDONTWRITEBYTECODE=1
python=$LAUF_EVENTS_VENV/bin/python
passed=0 failed=0 skipped=0

sum() {
  echo "$passed passed, $failed failed, $skipped skipped"
  [ "$failed" = 0 ] || exit 1
  [ "$passed" != 0 ] || exit 77
  exit 0
}

skip() {
  echo "SKIP faults: $1"
  skipped=$((skipped + 1))
  sum
}

command -v python3 >/dev/null || skip "python3 is not installed"
if said=$(cd "$here" && python3 -m unittest test_judge 2>&1); then
  echo "ok   the judge finds each breach"
  passed=1
else
  echo "$said"
  echo "FAIL the judge does not find each breach"
  failed=1
fi

[ -x "$LAUF_BIN" ] || skip "there is no $LAUF_BIN: cargo build --workspace"
[ "$(id -u)" = 0 ] || skip "needs root for namespaces, mounts and cgroups"
why=$("$root/tests/events/clients.sh") || skip "$why"

last=""
while IFS= read -r line; do
  [ -z "$last" ] || echo "$last"
  last=$line
done < <("$python" "$here/run.py" "$@" 2>&1)
if [[ $last =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed,\ ([0-9]+)\ skipped$ ]]; then
  passed=$((passed + BASH_REMATCH[1])) failed=$((failed + BASH_REMATCH[2])) skipped=$((skipped + BASH_REMATCH[3]))
else
  echo "$last"
  echo "FAIL run.py told no sum"
  failed=$((failed + 1))
fi
sum
