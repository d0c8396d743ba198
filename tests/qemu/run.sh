#!/bin/bash
# The sandbox's test programs on a kernel with real cgroup v2 controllers; boot.sh is the machine.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
repo=$(cd "$here/../.." && pwd)
cd "$repo" || exit 2

# Built by the Rust tests already; this only asks where they are.
tests=(hostkit_cgroup hostkit_net hostkit_hostile containers)
options=()
for test in "${tests[@]}"; do options+=(--test "$test"); done
found=$(cargo test --quiet --package lauf-sandbox "${options[@]}" --no-run --message-format=json) || exit 2
programs=()
for test in "${tests[@]}"; do
  program=$(sed -n "s|.*\"executable\":\"\([^\"]*/$test-[0-9a-f]*\)\".*|\1|p" <<<"$found" | head -1)
  [ -n "$program" ] || { echo "FAIL $test: cargo names no program for it"; echo "0 passed, 1 failed, 0 skipped"; exit 1; }
  # runc cannot be started twice from a root that is an initramfs; the host's run has it.
  [ "$test" != containers ] || program="$program own/"
  programs+=("$program")
done
bash "$here/boot.sh" "${programs[@]}" \
  crates/sandbox/tests/containers/probe.c crates/sandbox/tests/hostkit_hostile/hostile.c
status=$?
case $status in
  0) echo "${#tests[@]} passed, 0 failed, 0 skipped" ;;
  77) echo "SKIP the sandbox on cgroup v2: a tool is missing, see above"; echo "0 passed, 0 failed, 1 skipped" ;;
  *) echo "FAIL the sandbox on cgroup v2: see above"; echo "0 passed, 1 failed, 0 skipped" ;;
esac
exit $status
