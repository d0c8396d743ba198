"""Worker pools: as many instances as asked for, whatever happens to them."""

import json
import os
import signal

from jobs import LONG, RUN, call, condition, pack
from platform_under_test import Failed, alive, command, until
from telling import expect, step


def create(platform, name, args, instances, method="POST", **container):
    """Makes or replaces a worker pool."""
    path = "workerpools" if method == "POST" else f"workerpools/{name}"
    call(platform, method, path, {
        "apiVersion": "run.googleapis.com/v1", "kind": "WorkerPool",
        "metadata": {"name": name, "annotations": {"run.googleapis.com/manualInstanceCount": str(instances)}},
        "spec": {"template": {"spec": {"containers": [{"image": "work", "args": args, **container}]}}},
    })


def ready(platform, name):
    """A worker pool once its latest change is in effect."""
    def check():
        pool = call(platform, "GET", f"workerpools/{name}")
        seen = pool["status"].get("observedGeneration") == pool["metadata"]["generation"]
        if not seen or condition(pool, "Ready")[0] != "True":
            raise Failed(json.dumps(pool["status"]))
        return pool
    return until(f"{name} is ready", LONG, check)


def workers(platform, *words):
    """The processes of workers with these words in their command line, as (pid, start time)."""
    return {(pid, born) for pid, born in platform.family() if command(pid).split("\0")[0].strip() and
            all(word in command(pid) for word in ("/work", *words))}


def tell(platform):
    """All of it, on one platform, which is killed on the way."""
    pack(platform)
    with step("a worker pool has as many instances as asked for"):
        create(platform, "puller", ["stay", "one"], 3)
        ready(platform, "puller")
        first = until("three run", LONG, lambda: (lambda w: w if len(w) == 3 else None)(workers(platform, "stay", "one")))

    with step("one that ends is replaced"):
        victim = sorted(first)[0]
        os.kill(victim[0], signal.SIGUSR1)
        until("it is gone", LONG, lambda: not alive(victim))
        until("three run again", LONG, lambda: len(workers(platform, "stay", "one")) == 3)

    with step("kill -9 of the server: they go on"):
        before = workers(platform, "stay", "one")
        platform.kill_server()
        platform.up()
        ready(platform, "puller")
        expect("workers", workers(platform, "stay", "one"), before)

    with step("a new revision takes over, and the old one's instances end"):
        create(platform, "puller", ["stay", "two"], 2, method="PUT")
        pool = ready(platform, "puller")
        until("two of the new", LONG, lambda: len(workers(platform, "stay", "two")) == 2)
        until("none of the old", LONG, lambda: not workers(platform, "stay", "one"))
        names = [r["metadata"]["name"] for r in json.loads(platform.api(
            "GET", "/apis/serving.knative.dev/v1/namespaces/demo/revisions"
            "?labelSelector=run.googleapis.com/workerPool%20%3D%20puller").body)["items"]]
        expect("revisions", len(names), 2)
        old = next(name for name in names if name != pool["status"]["latestReadyRevisionName"])

    with step("instances are divided as asked"):
        pool["spec"]["instanceSplits"] = [{"revisionName": old, "percent": 50}, {"latestRevision": True, "percent": 50}]
        pool["metadata"]["annotations"]["run.googleapis.com/manualInstanceCount"] = "4"
        call(platform, "PUT", "workerpools/puller", pool)
        ready(platform, "puller")
        until("two and two", LONG, lambda: (len(workers(platform, "stay", "one")), len(workers(platform, "stay", "two"))) == (2, 2))

    with step("a revision that cannot start takes nothing away"):
        create(platform, "puller", ["stay", "three"], 2, method="PUT", command=["/nothing"])
        until("it is told", LONG, lambda: condition(call(platform, "GET", "workerpools/puller"), "Ready")[0] == "False")
        expect("what ran", len(workers(platform, "stay")) > 0, True)

    with step("zero instances are none, and a deleted pool leaves none"):
        create(platform, "puller", ["stay", "four"], 0, method="PUT")
        ready(platform, "puller")
        until("none", LONG, lambda: not workers(platform, "stay"))
        create(platform, "puller", ["stay", "five"], 1, method="PUT")
        ready(platform, "puller")
        until("one", LONG, lambda: len(workers(platform, "stay", "five")) == 1)
        call(platform, "DELETE", "workerpools/puller")
        until("it is gone", LONG, lambda: platform.api("GET", f"{RUN}/workerpools/puller").status == 404)
        expect("workers", workers(platform, "stay"), set())

    with step("lauf worker-pools does it all, too"):
        tell_by_command_line(platform)


def tell_by_command_line(platform):
    """A worker pool from its making to its end, with `lauf worker-pools`."""
    def pools(*words, **kept):
        return platform.lauf("worker-pools", *words, **kept)

    def running(count, *words):
        until(f"{count} run", LONG, lambda: len(workers(platform, "stay", *words)) == count)

    expect("no image", "--image" in pools("deploy", "mine", fails=True), True)
    pools("deploy", "mine", "--image", "work", "--args", "stay six", "--instances", "2")
    running(2, "six")
    pools("deploy", "mine", "--args", "stay seven")
    running(2, "seven")
    running(0, "six")
    old = next(r["metadata"]["name"] for r in json.loads(platform.api(
        "GET", "/apis/serving.knative.dev/v1/namespaces/demo/revisions"
        "?labelSelector=run.googleapis.com/workerPool%20%3D%20mine").body)["items"]
        if "six" in r["spec"]["containers"][0]["args"])
    pools("split", "mine", f"{old}=50,LATEST=50")
    running(1, "six")
    running(1, "seven")
    pools("scale", "mine", "4")
    running(2, "six")
    running(2, "seven")
    expect("in the list", "mine" in pools("list"), True)
    shown = pools("describe", "mine")
    expect("shown", all(word in shown for word in ("mine", "work", old, "50 %")), True)
    expect("the log's end", json.loads(pools("logs", "mine", "--format", "json"))[-1]["resource"]["type"],
           "cloud_run_worker_pool")
    expect("another's", "no worker pool 'other'" in pools("scale", "other", "1", fails=True), True)
    pools("delete", "mine", "--yes")
    running(0)
