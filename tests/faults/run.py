#!/usr/bin/env python3
"""kill -9 of the whole of Lauf at random moments, again and again, while everything goes on that must not be lost.

    LAUF_BIN=target/debug/lauf tests/faults/run.py [--kills N] [--seconds N] [--seed N] [--keep FOLDER]

Google's client publishes and pulls, an endpoint is pushed to and called by scheduled jobs and tasks, jobs execute, and things are
created and deleted. After the last kill all that is promised must come, and the judge reads the history of it. That of a run which
fails is kept, with the server's log. The seed gives the moments of the kills and what is asked for, not what the machine makes of it.
"""

import argparse
import contextlib
import logging
import pathlib
import random
import shutil
import signal
import sys
import tempfile
import threading
import time

import calls
import executions
import messages
from endpoint import Endpoint
from history import History
from judge import judge
from platform_under_test import Failed, Platform, until
from resources import Resources
from telling import TALLY, expect, failed, passed, skipped, step

# Between the kills; the first are so soon that the server has just begun to take up what was left.
SHORTEST, LONGEST = 0.05, 4.0
# How often the next one is killed before it is there, and how long a start may take.
WHILE_STARTING, STARTING = 0.25, 0.3
# What promises take to come true after the last kill.
DRAIN = 60
# Whatever would come again by itself, comes.
SETTLE = 3


def options():
    """What can be chosen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=120, help="no more kills after so many seconds")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--keep", type=pathlib.Path, help="keeps history and log there; without it, in a temporary folder if the run fails")
    return parser.parse_args()


def kill_again_and_again(platform, history, kills, seconds):
    """Gives how often."""
    began = time.monotonic()
    number = 0
    while number < kills and time.monotonic() - began < seconds:
        time.sleep(random.uniform(SHORTEST, random.uniform(SHORTEST, LONGEST)))
        number += 1
        history.tell("kill", number)
        platform.kill_server()
        while random.random() < WHILE_STARTING and number < kills:
            number += 1
            history.tell("kill", number, "while it starts")
            kill_while_it_starts(platform)
        platform.up()
        history.tell("up", number)
    return number


def kill_while_it_starts(platform):
    """A server that is gone before it says where it is, or just after."""
    killer = threading.Timer(random.uniform(0, STARTING), lambda: platform.server.kill())
    killer.start()
    # One that says in time where it is, is killed all the same.
    with contextlib.suppress(RuntimeError):
        platform.up()
    killer.join()
    # Its time may have come before there was a process.
    platform.kill_server()


def once_more(platform, history):
    """After the last kill whatever was not done with before it would be handed out again."""
    history.tell("kill", "last")
    platform.kill_server()
    platform.up()
    history.tell("up", "last")
    time.sleep(SETTLE)


def tell(platform, history, asked):
    """The story."""
    endpoint = Endpoint(history)
    with_jobs = bool(shutil.which("cc"))
    messages.prepare(platform, history, endpoint.url)
    calls.prepare(platform, endpoint.url)
    if with_jobs:
        executions.prepare(platform)
    else:
        skipped("executions of jobs", "cc is not installed")
    jobs = executions.Executions(platform, history) if with_jobs else None
    resources = Resources(platform, history, with_jobs)
    load = [messages.Publisher(platform, history), calls.Tasks(platform, history, endpoint.url), resources]
    load += [calls.Runs(platform, history, job) for job in calls.JOBS]
    pullers = [messages.Streamer(platform, history, name) for name in messages.STREAMED]
    pullers += [messages.Puller(platform, history, name) for name in messages.PULLED]
    with step(f"kill -9 of the server, up to {asked.kills} times, with everything going on"):
        done = kill_again_and_again(platform, history, asked.kills, asked.seconds)
        print(f"     {done} kills", flush=True)
    for each in load:
        each.end()
    if jobs:
        with step("all executions end, and their logs are whole"):
            jobs.drain()
    with step("all that was promised comes"):
        until("an empty list of what is missing", DRAIN, lambda: nothing_missing(history))
    once_more(platform, history)
    if jobs:
        with step("what was said of executions is still said"):
            jobs.look_again()
    for puller in pullers:
        puller.end()
    with step("everything went on until the end"):
        goings = [each.going for each in [*load, *pullers, *([jobs] if jobs else [])]]
        expect("what stopped", {going.name: going.error for going in goings if going.error}, {})
    with step("what was created is found"):
        resources.look()
    endpoint.end()
    verdict(history, jobs)


def nothing_missing(history):
    """No breach is left that time can mend; what was created is looked for later."""
    missing = [breach for breach in judge(history.lines())
               if breach.startswith(("lost", "forgotten", "unfinished")) and " is not there" not in breach]
    if missing:
        time.sleep(0.5)
        raise Failed(f"{len(missing)}: {missing[:3]}")
    return True


def verdict(history, jobs):
    """What the judge says; and whether it had anything to judge."""
    lines = history.lines()
    counted = ["sent", "got", "acked", "ran", "did", "made", "there", *(["execution", "begin"] if jobs else [])]
    tally = {word: sum(line[0] == word for line in lines) for word in counted}
    print(f"     {', '.join(f'{word} {count}' for word, count in tally.items())}", flush=True)
    with step("there was something of everything"):
        expect("what did not happen", [word for word, count in tally.items() if not count], [])
    breaches = judge(lines)
    if breaches:
        failed(f"no promise is broken: {len(breaches)} are", "; ".join(breaches[:8]))
    else:
        passed("no promise is broken")


def keep(folder, history, log):
    """Leaves history and log where they can be read."""
    folder = folder or pathlib.Path(tempfile.mkdtemp(prefix="lauf-faults-failed-"))
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(history, folder / "history")
    (folder / "log").write_text(log)
    print(f"     history and log are in {folder}; tests/faults/judge.py reads the history", flush=True)


def main():
    """The last line is the sum."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    # The clients tell of each broken connection.
    logging.disable(logging.CRITICAL)
    asked = options()
    random.seed(asked.seed)
    print(f"-- kill -9 of the whole of Lauf, seed {asked.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="lauf-faults-") as folder:
        history = History(pathlib.Path(folder) / "history")
        log = ""
        with step("the platform lives through it and leaves nothing behind"), Platform() as platform:
            try:
                tell(platform, history, asked)
            finally:
                log = platform.log()
        if TALLY["failed"] or asked.keep:
            keep(asked.keep, history.path, log)
    print("{passed} passed, {failed} failed, {skipped} skipped".format(**TALLY), flush=True)
    return 1 if TALLY["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
