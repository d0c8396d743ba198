"""Executions of jobs: started, watched through the API, and asked at the end what ran."""

import contextlib
import json
import pathlib
import subprocess
import tempfile
import time

from going import Going
from patience import AWAY, GIVE_UP
from platform_under_test import Failed, until

RUN = "/apis/run.googleapis.com/v1/namespaces/demo"
TASKS = 20
# One whose tasks all end well, and one of which each second task fails first.
JOBS = {"smooth": ["end", "200"], "rough": ["some", "150", "3"]}
# What the machine can do besides all else.
AT_ONCE = 2
PARALLELISM = 5


def prepare(platform):
    """The image and the jobs."""
    with tempfile.TemporaryDirectory(prefix="lauf-faults-work-") as folder:
        source = pathlib.Path(__file__).parent.parent / "platform" / "work.c"
        subprocess.run(["cc", "-O1", "-static", "-o", f"{folder}/work", str(source)], check=True)
        platform.pack("work", folder, entrypoint="/work")
    for name, args in JOBS.items():
        create(platform, name, args, TASKS)
        until(f"job {name} is ready", GIVE_UP, lambda name=name: any(
            condition["type"] == "Ready" and condition["status"] == "True"
            for condition in platform.api("GET", f"{RUN}/jobs/{name}").json()["status"]["conditions"]))


def create(platform, name, args, tasks):
    """A job."""
    container = {"image": "work", "args": args, "resources": {"limits": {"memory": "128Mi", "cpu": "1"}}}
    task = {"containers": [container], "maxRetries": 1, "timeoutSeconds": "600"}
    ask(platform, "POST", "jobs", {
        "apiVersion": "run.googleapis.com/v1", "kind": "Job", "metadata": {"name": name},
        "spec": {"template": {"spec": {"taskCount": tasks, "parallelism": PARALLELISM, "template": {"spec": task}}}},
    })


def ask(platform, method, path, body=None):
    """A call that must be answered well, if at all."""
    answer = platform.api(method, f"{RUN}/{path}", body)
    if answer.status == 503:
        raise ConnectionError(str(answer))
    if answer.status != 200:
        raise Failed(f"{method} {path}: {answer}")
    return answer.json()


class Executions:
    """Keeps some executions going."""

    def __init__(self, platform, history):
        self.platform, self.history = platform, history
        self.states, self.known, self.ended = {}, {}, set()
        self.turn, self.starting = 0, True
        self.going = Going("executions", self.step)

    def step(self):
        """Starts one if there is room, and looks at those that go on."""
        with contextlib.suppress(*AWAY):
            if self.starting and len(set(self.known) - self.ended) < AT_ONCE:
                self.start()
            for name in sorted(set(self.known) - self.ended):
                self.look(name)
        time.sleep(0.15)

    def start(self):
        """Each job in its turn."""
        self.turn += 1
        job = list(JOBS)[self.turn % len(JOBS)]
        answer = ask(self.platform, "POST", f"jobs/{job}:run", {})
        self.meet(answer["metadata"]["name"], job)

    def meet(self, name, job):
        """An execution is there: it was answered for, or was found."""
        if name not in self.known:
            self.known[name] = job
            self.history.tell("execution", name, TASKS)

    def look(self, name):
        """What the API says of one now; told when it says something new."""
        execution = ask(self.platform, "GET", f"executions/{name}")
        tasks = ask(self.platform, "GET", f"tasks?limit=100&labelSelector=run.googleapis.com/execution%20%3D%20{name}")["items"]
        for task in tasks:
            state = (task["metadata"]["labels"]["run.googleapis.com/runningState"], task["status"].get("retried", 0))
            which = (name, task["status"].get("index", 0))
            if self.states.get(which) != state:
                self.states[which] = state
                self.history.tell("state", *which, *state)
        status = execution["status"]
        if "completionTime" in status:
            self.history.tell("ended", name, *(status.get(f"{how}Count", 0) for how in ("succeeded", "failed", "cancelled")))
            self.ended.add(name)

    def drain(self):
        """Waits for the end of all, of those too whose start was not answered; then tells what ran."""
        self.starting = False
        until("all executions end", GIVE_UP, self.all_ended)
        self.end()
        for job in JOBS:
            said = until(f"the log of {job} is whole", GIVE_UP, lambda job=job: self.whole(job))
            for name, line in sorted(said):
                if line.startswith("begin "):
                    self.history.tell("begin", name, *line.split()[1:])

    def all_ended(self):
        """Whether all that the API knows have ended."""
        for execution in ask(self.platform, "GET", "executions?limit=1000")["items"]:
            self.meet(execution["metadata"]["name"], execution["metadata"]["labels"]["run.googleapis.com/job"])
        return set(self.known) == self.ended

    def look_again(self):
        """What was said of all, once more, after all that could change it."""
        for name in self.known:
            self.look(name)

    def whole(self, job):
        """What all executions of a job wrote, each line once, when the end of each task is there."""
        entries = json.loads(self.platform.lauf("jobs", "logs", job, "-n", "100000", "--format", "json"))
        said = {(entry["labels"]["run.googleapis.com/execution_name"], entry["textPayload"])
                for entry in entries if entry["logName"].endswith("stdout")}
        ends = {(name, line.split()[1]) for name, line in said if line.startswith("end ")}
        wanted = {(name, str(task)) for name, of in self.known.items() if of == job for task in range(TASKS)}
        if wanted - ends:
            raise Failed(f"no end of {sorted(wanted - ends)[:5]}, {len(wanted - ends)} in all")
        return said

    def end(self):
        """Watches no more."""
        self.going.end(GIVE_UP)
