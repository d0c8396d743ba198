#!/usr/bin/env bash
# Makes the virtual environment LAUF_EVENTS_VENV with Google's clients, if it is not there; says why it cannot.
set -uo pipefail
venv=$LAUF_EVENTS_VENV

cannot() {
  echo "$1"
  exit 1
}

command -v python3 >/dev/null || cannot "python3 is not installed"
mkdir -p "$(dirname "$venv")"
# Two groups of tests may want it at once.
exec 9>"$venv.lock" && { flock 9 || true; }
"$venv/bin/python" -c 'import google.cloud.pubsub_v1, google.cloud.scheduler_v1, google.cloud.tasks_v2, google.cloud.eventarc_v1, google.cloud.eventarc_publishing_v1, requests' 2>/dev/null \
  && exit 0
python3 -m venv "$venv" >&2 || cannot "python3 cannot make a virtual environment: install python3-venv"
"$venv/bin/python" -m pip install -q --disable-pip-version-check \
  'google-cloud-pubsub>=2.29,<3' 'google-cloud-scheduler>=2.16,<3' 'google-cloud-tasks>=2.19,<3' \
  'google-cloud-eventarc>=1.15,<2' 'google-cloud-eventarc-publishing>=0.10,<1' requests >&2 \
  || cannot "Google's clients cannot be had from the package index"
