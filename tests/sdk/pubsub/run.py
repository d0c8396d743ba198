#!/usr/bin/env python3
"""The same stories, told by Google's clients to Google's Pub/Sub emulator and to Lauf: the same things must be true of both, but for
what the emulator is known to do otherwise (deviations.py).

    run.py [--emulator=PROGRAM] [--lauf] NAME=COMMAND...

Each COMMAND tells the stories of one client to the Pub/Sub that PUBSUB_EMULATOR_HOST names, and prints a line of JSON of each. Lauf is
the program that LAUF_BIN names."""

import argparse
import concurrent.futures
import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys

from deviations import DEVIATIONS
from places import Emulator, Failed, Lauf

# Seconds that a story waits for what must come. The emulator's stories are told to be compared, and some are known to wait in vain.
PATIENCE = {"emulator": 30, "lauf": 60}
# A client that has not told all by then tells no more.
LONGEST = 300


running = []


def stop(*_):
    """Ends the clients, so that nobody waits for them, and then all."""
    for client in running:
        client.kill()
    sys.exit(1)


def tell(place, host, command):
    """What a client tells of a place: of each story, its error or None."""
    environment = dict(os.environ, PUBSUB_EMULATOR_HOST=host, PUBSUB_PROJECT_ID="demo", PATIENCE=str(PATIENCE[place]))
    with subprocess.Popen(
        shlex.split(command), env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as client:
        running.append(client)
        try:
            told, complaints = client.communicate(timeout=LONGEST)
        except subprocess.TimeoutExpired:
            client.kill()
            raise
    stories = {}
    for line in told.splitlines():
        said = json.loads(line)
        stories[said["story"]] = said["error"]
    if client.returncode != 0 or not stories:
        stories["client"] = f"exit {client.returncode}:\n{complaints[-4000:]}"
    return stories


def judge(place, story, error):
    """What is wrong with how a story ended, and what is known of it."""
    if place == "emulator" and story in DEVIATIONS:
        why, does = DEVIATIONS[story]
        if error is None:
            return f"listed as a deviation ({why}), but it passes now: take it out of deviations.py", None
        if not re.search(does, error):
            return f"listed as a deviation ({why}), but it fails with: {error}", None
        return None, why
    return error, None


def main():
    """Tells all and prints the sum last."""
    signal.signal(signal.SIGTERM, stop)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--emulator", metavar="PROGRAM")
    parser.add_argument("--lauf", action="store_true")
    parser.add_argument("clients", nargs="+", metavar="NAME=COMMAND")
    asked = parser.parse_args()
    clients = dict(client.split("=", 1) for client in asked.clients)
    places = {}
    if asked.emulator:
        places["emulator"] = Emulator(asked.emulator)
    if asked.lauf:
        places["lauf"] = Lauf()
    passed = failed = 0
    try:
        with concurrent.futures.ThreadPoolExecutor() as pool:
            hosts = dict(zip(places, pool.map(lambda place: place.start(), places.values())))
            told = {
                (place, client): pool.submit(tell, place, host, command)
                for place, host in hosts.items() for client, command in clients.items()
            }
        heard = set()
        for (place, client), stories in told.items():
            stories = stories.result()
            heard.update(stories)
            known = 0
            for story, error in stories.items():
                wrong, why = judge(place, story, error)
                known += why is not None
                passed, failed = passed + (wrong is None), failed + (wrong is not None)
                if wrong:
                    print(f"FAIL {story} ({client}, {place}): {wrong}", flush=True)
            print(f"{client} to {place}: {len(stories)} stories, {known} with a known deviation", flush=True)
        for story in sorted(set(DEVIATIONS) - heard):
            failed += 1
            print(f"FAIL {story}: a deviation is listed of it, but no client tells it", flush=True)
        if failed and "lauf" in places:
            print(places["lauf"].said())
    except (Failed, OSError, ValueError, subprocess.TimeoutExpired) as error:
        failed += 1
        print(f"FAIL pubsub: {error}", flush=True)
    finally:
        # Each is stopped, whatever becomes of the others.
        with contextlib.ExitStack() as all_of_them:
            for place in places.values():
                all_of_them.callback(place.stop)
    print(f"{passed} passed, {failed} failed, 0 skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
