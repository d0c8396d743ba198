"""Cloud Scheduler and Cloud Tasks with Google's clients, asked without a pause."""

import random
import time

from google.cloud import scheduler_v1, tasks_v2

from going import Going
from house import PROJECT
from patience import AWAY, CALL, GIVE_UP, client

REGION = f"{PROJECT}/locations/us-central1"
# Of a year that is far away: what runs is run by hand.
NEVER = "0 0 29 2 *"
QUEUE = f"{REGION}/queues/work"
JOBS = ("tick", "tock")
# No run is waited for longer before the next is asked for; the judge knows whether it came.
PROMISE = 5


def prepare(platform, endpoint):
    """The queue and the jobs."""
    client(platform, tasks_v2.CloudTasksClient).create_queue(parent=REGION, queue={
        "name": QUEUE, "retry_config": {"max_attempts": -1, "min_backoff": {"nanos": 100_000_000}, "max_backoff": {"seconds": 1}},
    })
    scheduler = client(platform, scheduler_v1.CloudSchedulerClient)
    for job in JOBS:
        scheduler.create_job(parent=REGION, job={
            "name": f"{REGION}/jobs/{job}", "schedule": NEVER, "http_target": {"uri": f"{endpoint}/run/{job}"},
        })


class Runs:
    """Asks one scheduled job to run, waits for it, and asks again."""

    def __init__(self, platform, history, job):
        self.history, self.job, self.number = history, job, 0
        self.client = client(platform, scheduler_v1.CloudSchedulerClient)
        self.going = Going(f"runs of {job}", self.step)

    def step(self):
        """One run."""
        self.number += 1
        before = len(self.history.lines())
        self.history.tell("ask", self.job, self.number)
        try:
            self.client.run_job(name=f"{REGION}/jobs/{self.job}", retry=None, timeout=CALL)
        except AWAY:
            time.sleep(0.1)
            return
        self.history.tell("asked", self.job, self.number)
        deadline = time.monotonic() + PROMISE
        while time.monotonic() < deadline and ("ran", self.job) not in self.history.lines()[before:]:
            time.sleep(0.05)
        time.sleep(random.uniform(0, 0.2))

    def end(self):
        """After the run that it waits for."""
        self.going.end(GIVE_UP)


class Tasks:
    """Adds HTTP tasks, some for a little later."""

    def __init__(self, platform, history, endpoint):
        self.history, self.url, self.number = history, f"{endpoint}/task", 0
        self.client = client(platform, tasks_v2.CloudTasksClient)
        self.going = Going("tasks", self.step)

    def step(self):
        """One task."""
        self.number += 1
        task = {"http_request": {"url": f"{self.url}/{self.number}"}}
        if random.random() < 0.3:
            task["schedule_time"] = {"seconds": int(time.time() + 2)}
        self.history.tell("add", self.number)
        try:
            self.client.create_task(parent=QUEUE, task=task, retry=None, timeout=CALL)
        except AWAY:
            time.sleep(0.1)
            return
        self.history.tell("added", self.number)
        time.sleep(random.uniform(0, 0.2))

    def end(self):
        """After the task that it adds."""
        self.going.end(GIVE_UP)
