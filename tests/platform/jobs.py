"""Jobs: tasks that end well, badly and not at all; overrides, cancelling, deleting; and servers killed in the middle."""

import collections
import json
import pathlib
import random
import subprocess
import tempfile
import time

from platform_under_test import Failed, until
from telling import expect, step

# Generous: the machine may be busy with other things.
LONG = 120
RUN = "/apis/run.googleapis.com/v1/namespaces/demo"


def pack(platform):
    """The image of work.c."""
    with tempfile.TemporaryDirectory(prefix="lauf-platform-work-") as folder:
        source = pathlib.Path(__file__).with_name("work.c")
        subprocess.run(["cc", "-O1", "-static", "-o", f"{folder}/work", str(source)], check=True)
        platform.pack("work", folder, entrypoint="/work")


def call(platform, method, path, body=None, status=200):
    """One call to the API, which must answer with this status."""
    answer = platform.api(method, f"{RUN}/{path}", body)
    if answer.status != status:
        raise Failed(f"{method} {path}: {answer}")
    return answer.json()


def create(platform, name, args, tasks=1, parallelism=0, retries=0, timeout=600, memory="128Mi", cpu="1"):
    """Makes a job and waits until it can be run."""
    container = {"image": "work", "args": args, "resources": {"limits": {"memory": memory, "cpu": cpu}}}
    task = {"containers": [container], "maxRetries": retries, "timeoutSeconds": str(timeout)}
    call(platform, "POST", "jobs", {
        "apiVersion": "run.googleapis.com/v1", "kind": "Job", "metadata": {"name": name},
        "spec": {"template": {"spec": {"taskCount": tasks, "parallelism": parallelism,
                                       "template": {"spec": task}}}},
    })
    until(f"job {name} is ready", LONG, lambda: condition(call(platform, "GET", f"jobs/{name}"), "Ready")[0] == "True")


def condition(thing, kind):
    """Status, reason and message of a condition."""
    for found in thing.get("status", {}).get("conditions", []):
        if found["type"] == kind:
            return found["status"], found.get("reason", ""), found.get("message", "")
    return "", "", ""


def start(platform, name, **overrides):
    """Runs a job and gives the execution's name."""
    return call(platform, "POST", f"jobs/{name}:run", {"overrides": overrides})["metadata"]["name"]


def execution(platform, name):
    """An execution as it is now."""
    return call(platform, "GET", f"executions/{name}")


def ended(platform, name):
    """An execution once it has ended."""
    def check():
        found = execution(platform, name)
        if "completionTime" not in found["status"]:
            raise Failed(json.dumps(found["status"]))
        return found
    return until(f"{name} has ended", LONG, check)


def tasks(platform, name):
    """The tasks of an execution, by index, page by page."""
    found, after = {}, ""
    while True:
        page = call(platform, "GET",
                    f"tasks?limit=7&continue={after}&labelSelector=run.googleapis.com/execution%20%3D%20{name}")
        for task in page["items"]:
            expect("a task once", task["status"]["index"] in found, False)
            found[task["status"]["index"]] = task
        after = page["metadata"].get("continue", "")
        if not after:
            return [found[index] for index in sorted(found)]


def counts(thing):
    """Succeeded, failed, cancelled, retried."""
    status = thing["status"]
    return tuple(status.get(f"{which}Count", 0) for which in ("succeeded", "failed", "cancelled", "retried"))


def lines(platform, job, *words):
    """What a job wrote."""
    entries = json.loads(platform.lauf("jobs", "logs", job, "-n", "20000", "--format", "json", *words))
    return [entry["textPayload"] for entry in entries if entry["logName"].endswith("stdout")]


def once(platform, job, args, task=0, **settings):
    """Makes and runs a job; gives the execution, one of its tasks, and how that ended."""
    create(platform, job, args, **settings)
    name = start(platform, job)
    found = ended(platform, name)
    one = tasks(platform, name)[task]
    return found, one, one["status"]["lastAttemptResult"]


def tell(platform):
    """Everything that can be told on one platform that nobody kills."""
    with step("a job ends well, and its tasks know who they are"):
        create(platform, "plain", ["say", "x"], tasks=12)
        name = start(platform, "plain")
        found = ended(platform, name)
        expect("counts", counts(found), (12, 0, 0, 0))
        expect("Completed", condition(found, "Completed")[0], "True")
        expect("Started", condition(found, "Started")[0], "True")
        expect("states", {t["metadata"]["labels"]["run.googleapis.com/runningState"] for t in tasks(platform, name)},
               {"Succeeded"})
        def all_said():
            said = lines(platform, "plain", "--task", "7")
            wanted = ["CLOUD_RUN_JOB=plain", f"CLOUD_RUN_EXECUTION={name}", "CLOUD_RUN_TASK_INDEX=7",
                      "CLOUD_RUN_TASK_ATTEMPT=0", "CLOUD_RUN_TASK_COUNT=12"]
            return all(f"variable {w}" in said for w in wanted) and not any(s.startswith("variable PORT=") for s in said)
        until("the log of one task", LONG, all_said)
        job = call(platform, "GET", "jobs/plain")
        latest = until("the job knows", LONG, lambda: (
            lambda l: l if l["completionStatus"] == "EXECUTION_SUCCEEDED" else None
        )(call(platform, "GET", "jobs/plain")["status"]["latestCreatedExecution"]))
        expect("latest", latest["name"], name)
        expect("count", job["status"]["executionCount"], 1)

    with step("overrides are for one execution only"):
        name = start(platform, "plain", taskCount=2, timeoutSeconds=77,
                     containerOverrides=[{"args": ["say", "other"], "env": [{"name": "A", "value": "1"}]}])
        found = ended(platform, name)
        expect("counts", counts(found), (2, 0, 0, 0))
        spec = found["spec"]["template"]["spec"]
        expect("timeout", spec["timeoutSeconds"], "77")
        until("what it said", LONG, lambda: {"argument other", "variable A=1"}
              <= set(lines(platform, "plain", "--execution", name)))
        again = ended(platform, start(platform, "plain"))
        expect("the job itself", again["spec"]["taskCount"], 12)

    with step("what fails is tried again, and no more often than allowed"):
        found, one, _ = once(platform, "second", ["fail", "5", "3"], tasks=3, retries=2)
        expect("counts", counts(found), (3, 0, 0, 3))
        expect("retried", one["status"]["retried"], 1)
        found, one, last = once(platform, "never", ["never", "7"], tasks=2, retries=2)
        expect("counts", counts(found), (0, 2, 0, 2))
        expect("retried", one["status"]["retried"], 2)
        expect("exit code", last["exitCode"], 7)
        status, reason, message = condition(found, "Completed")
        expect("Completed", (status, reason), ("False", "NonZeroExitCode"))
        if "exit code: 7" not in message:
            raise Failed(message)

    with step("signals, memory and time end a task, and it is told which"):
        _, _, last = once(platform, "crasher", ["crash"])
        expect("signal", last["termSignal"], 11)
        _, _, last = once(platform, "eater", ["eat"])
        if "Memory limit of 128 MiB exceeded" not in last["status"]["message"]:
            raise Failed(str(last))
        found, _, last = once(platform, "late", ["stay"], timeout=1)
        expect("code", last["status"]["code"], 4)
        expect("reason", condition(found, "Completed")[1], "DeadlineExceeded")
        _, _, last = once(platform, "missing", ["end"], tasks=1)
        expect("exit code", last["exitCode"], 0)

    with step("no more tasks at once than the parallelism allows"):
        create(platform, "narrow", ["end", "100"], tasks=9, parallelism=3)
        name = start(platform, "narrow")
        most = 0
        def watch():
            nonlocal most
            found = execution(platform, name)
            most = max(most, found["status"].get("runningCount", 0))
            return "completionTime" in found["status"]
        until("the end", LONG, watch)
        if not 1 <= most <= 3:
            raise Failed(f"{most} at once")

    with step("a cancelled execution ends, also one that ignores SIGTERM"):
        create(platform, "stubborn", ["stubborn"], tasks=4, parallelism=2)
        name = start(platform, "stubborn")
        until("two run", LONG, lambda: execution(platform, name)["status"].get("runningCount") == 2)
        call(platform, "POST", f"executions/{name}:cancel", {})
        found = ended(platform, name)
        expect("counts", counts(found), (0, 0, 4, 0))
        expect("Completed", condition(found, "Completed")[:2], ("False", "Cancelled"))
        call(platform, "POST", f"executions/{name}:cancel", {}, status=400)

    with step("an execution, and a job with executions that run, can be deleted"):
        create(platform, "gone", ["stay"], tasks=3)
        first, second = start(platform, "gone"), start(platform, "gone")
        until("all run", LONG, lambda: execution(platform, second)["status"].get("runningCount") == 3)
        call(platform, "DELETE", f"executions/{first}")
        until("the execution is gone", LONG, lambda: platform.api("GET", f"{RUN}/executions/{first}").status == 404)
        expect("its tasks", tasks(platform, first), [])
        call(platform, "DELETE", "jobs/gone")
        until("the job is gone", LONG, lambda: platform.api("GET", f"{RUN}/jobs/gone").status == 404)
        expect("the other", platform.api("GET", f"{RUN}/executions/{second}").status, 404)
        left = [t for t in call(platform, "GET", "tasks")["items"] if t["metadata"]["labels"]["run.googleapis.com/job"] == "gone"]
        expect("tasks", left, [])

    with step("an image that is not there is told by the job"):
        call(platform, "POST", "jobs", {
            "apiVersion": "run.googleapis.com/v1", "kind": "Job", "metadata": {"name": "nowhere"},
            "spec": {"template": {"spec": {"template": {"spec": {"containers": [
                {"image": "127.0.0.1:1/nowhere:v1"}]}}}}},
        })
        until("not ready", LONG, lambda: condition(call(platform, "GET", "jobs/nowhere"), "Ready")[0] == "False")

    with step("lauf jobs: deploy, run, list, executions, logs, delete"):
        platform.lauf("jobs", "deploy", "mine", "--image", "work", "--args", "say", "--tasks", "3", "--max-retries", "0")
        out = platform.lauf("jobs", "run", "mine", "--env", "B=2", "--", "say", "hello")
        if out.count("argument hello") != 3 or out.count("variable B=2") != 3:
            raise Failed(out)
        wrong = platform.lauf("jobs", "run", "mine", "--", "never", "5", fails=True)
        if "exit code: 5" not in wrong:
            raise Failed(wrong)
        runs = json.loads(platform.lauf("jobs", "executions", "mine", "--format", "json"))
        expect("executions", len(runs), 2)
        table = platform.lauf("jobs", "executions", "--execution", runs[0]["metadata"]["name"])
        if table.count("Failed") != 3:
            raise Failed(table)
        for words in (["list"], ["describe", "mine"]):
            if "mine" not in platform.lauf("jobs", *words):
                raise Failed(str(words))
        platform.lauf("jobs", "delete", "mine", "--yes")


def killed(platform, kills):
    """kill -9 of the server in the middle of executions: no task lost, none run after it succeeded, attempts counted rightly."""
    create(platform, "long", ["fail", "40", "3"], tasks=60, parallelism=8, retries=1)
    create(platform, "short", ["end", "1"], tasks=200, parallelism=20, retries=0)
    names = {"long": start(platform, "long"), "short": start(platform, "short")}
    for _ in range(kills):
        time.sleep(random.uniform(0.02, 0.4))
        platform.kill_server()
        platform.up()
    with step(f"two executions and {kills} times kill -9 of the server: both end well"):
        found = {job: ended(platform, name) for job, name in names.items()}
        expect("long", counts(found["long"]), (60, 0, 0, 60))
        expect("short", counts(found["short"]), (200, 0, 0, 0))
    with step("each attempt ran once, and none after a success"):
        for job, attempts in (("long", 2), ("short", 1)):
            def all_there():
                return len({line for line in lines(platform, job) if line.startswith("end ")}) == len(tasks(platform, names[job]))
            until(f"the log of {job}", LONG, all_there)
            begun = collections.Counter(tuple(line.split()[1:3]) for line in set(lines(platform, job)) if line.startswith("begin "))
            twice = {which: count for which, count in begun.items() if count > 1}
            expect(f"attempts of {job} that ran twice", twice, {})
            wanted = {(str(task), str(attempt)) for task in range(len(tasks(platform, names[job]))) for attempt in range(attempts)}
            expect(f"attempts of {job}", set(begun), wanted)
            for task in tasks(platform, names[job]):
                expect("retried", task["status"].get("retried", 0), attempts - 1)
    with step("a task that runs while the server is killed goes on, and its end is not missed"):
        create(platform, "away", ["end", "700"], tasks=3)
        name = start(platform, "away")
        until("all run", LONG, lambda: execution(platform, name)["status"].get("runningCount") == 3)
        platform.kill_server()
        time.sleep(1.5)
        platform.up()
        expect("counts", counts(ended(platform, name)), (3, 0, 0, 0))
        begun = {line for line in lines(platform, "away") if line.startswith("begin ")}
        expect("processes", len(begun), 3)


def keeper_killed(platform, kill):
    """kill -9 of the keeper: what ran is lost, counted as an attempt, and tried again."""
    with step("a killed keeper costs its tasks one attempt"):
        create(platform, "lost", ["stay"], tasks=2, retries=1)
        name = start(platform, "lost")
        # Not only on record: what had not been started when the keeper died was no attempt.
        until("both have begun", LONG, lambda: {line.split()[1] for line in lines(platform, "lost") if line.startswith("begin ")}
              == {"0", "1"})
        kill(platform)
        until("both run again", LONG, lambda: [t["status"].get("retried") for t in tasks(platform, name)] == [1, 1]
              and execution(platform, name)["status"].get("runningCount") == 2)
        call(platform, "POST", f"executions/{name}:cancel", {})
        ended(platform, name)
