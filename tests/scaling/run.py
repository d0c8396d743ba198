#!/usr/bin/env python3
"""How many instances there are, and when, in stories on live instances.

    LAUF_BIN=target/debug/lauf tests/scaling/run.py [STORY ...]

All stories share one platform whose idle timeout is 6 s, so that the windows are 0.4 s and 4 s. What is waited for is an event;
what must *not* happen is looked at for as long as it could.
"""

import concurrent.futures
import contextlib
import http.client
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import traceback

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "platform"))
from platform_under_test import LAUF, Failed, Load, Platform, command, read, until  # noqa: E402
from telling import TALLY, expect, failed, skipped, step  # noqa: E402

IDLE = 6
# Generous: the machine may be busy with other things.
LONG = 90
SERVICES = "/apis/serving.knative.dev/v1/namespaces/demo/services"


class Services:
    """The services of one platform, made and watched."""

    def __init__(self, platform):
        self.platform = platform

    def deploy(self, name, *words, concurrency=80):
        """A service of the app, open to all, when it is ready; gives its host."""
        self.platform.lauf("deploy", name, "--image", "app", "--allow-unauthenticated",
                           "--concurrency", str(concurrency), *words)
        return self.platform.host(name)

    def put(self, name, spec, notes):
        """Creates a service through the API, with annotations that the command line has no words for."""
        body = {
            "apiVersion": "serving.knative.dev/v1", "kind": "Service",
            "metadata": {"name": name, "namespace": "demo", "annotations": {"run.googleapis.com/invoker-iam-disabled": "true"}},
            "spec": {"template": {"metadata": {"annotations": notes}, "spec": {"containers": [{"image": "app"}], **spec}}},
        }
        answer = self.platform.api("POST", SERVICES, body)
        if answer.status not in (200, 201):
            raise Failed(f"creating {name}: {answer}")
        status, text = self.platform.settled(name, LONG)
        if status != "True":
            raise Failed(f"{name}: {text}")

    def annotate(self, name, **notes):
        """Changes annotations of the service itself: no new revision."""
        def change():
            service = self.platform.api("GET", f"{SERVICES}/{name}").json()
            for key, value in notes.items():
                service["metadata"]["annotations"][f"run.googleapis.com/{key}"] = str(value)
            answer = self.platform.api("PUT", f"{SERVICES}/{name}", service)
            if answer.status != 200:
                raise Failed(str(answer))
            return True
        until(f"{name} takes {notes}", LONG, change)

    def count(self, name):
        """How many instances there are, starting ones included."""
        return self.platform.services()[name]["instances"]

    def reaches(self, name, count, seconds=LONG):
        """Waits until there are so many."""
        def check():
            seen = self.count(name)
            if seen != count:
                raise Failed(f"{seen} instances")
            return True
        until(f"{name} has {count} instances", seconds, check)

    def by_revision(self, name):
        """How many processes each revision has."""
        counts = {}
        for pid, _ in self.platform.family():
            environment = read(f"/proc/{pid}/environ").split("\0")
            if command(pid).startswith("/app") and f"K_SERVICE={name}" in environment:
                revision = next(v.split("=", 1)[1] for v in environment if v.startswith("K_REVISION="))
                counts[revision] = counts.get(revision, 0) + 1
        return counts


@contextlib.contextmanager
def asking(platform, host, paths):
    """Asks for all paths at the same time; the answers come when they are waited for."""
    with concurrent.futures.ThreadPoolExecutor(max(1, len(paths))) as pool:
        yield [pool.submit(platform.get, host, path, LONG) for path in paths]


def statuses(asked):
    """How often each status came."""
    counts = {}
    for future in asked:
        status = future.result().status
        counts[status] = counts.get(status, 0) + 1
    return counts


class Highest:
    """The most instances there were while it watched."""

    def __init__(self, services, name):
        self.services, self.name, self.most, self.going = services, name, 0, True
        self.thread = threading.Thread(target=self.watch, daemon=True)

    def watch(self):
        """Looks as often as the command line lets it."""
        while self.going:
            self.most = max(self.most, self.services.count(self.name))

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.going = False
        self.thread.join()


# The stories.

def burst(services):
    """A burst: every request at once gets an instance of its own, and never are there more than may be."""
    platform = services.platform
    host = services.deploy("burst", "--max-instances", "6", concurrency=1)
    with step("six requests at once are six instances"):
        with asking(platform, host, ["/wait?3000"] * 6) as asked:
            services.reaches("burst", 6)
        expect("statuses", statuses(asked), {200: 6})
    with step("thirty at once wait for the six, and none is lost"):
        with Highest(services, "burst") as highest, asking(platform, host, ["/wait?200"] * 30) as asked:
            expect("statuses", statuses(asked), {200: 30})
        if highest.most > 6:
            raise Failed(f"{highest.most} instances")


def ramp(services):
    """A ramp: the windows start instances before the slots are full."""
    platform = services.platform
    host = services.deploy("ramp", "--max-instances", "8", concurrency=10)
    with contextlib.ExitStack() as streams:
        with step("eight streams of ten slots are one instance"):
            for _ in range(8):
                streams.enter_context(stream(platform, host))
            steady(services, "ramp", 1, 2)
        with step("twelve are more than the slots of one and want two"):
            for _ in range(4):
                streams.enter_context(stream(platform, host))
            services.reaches("ramp", 2)
        with step("eighteen still fit into two instances, but three are wanted, so that none is full"):
            for _ in range(6):
                streams.enter_context(stream(platform, host))
            services.reaches("ramp", 3)
    with step("without load it goes to zero"):
        services.reaches("ramp", 0)


def steady(services, name, count, seconds):
    """Looks for so long, and there are always so many."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        expect("instances", services.count(name), count)


@contextlib.contextmanager
def stream(platform, host):
    """An endless response, begun."""
    connection = http.client.HTTPConnection("127.0.0.1", platform.port, timeout=LONG)
    try:
        connection.request("GET", "/stream", headers={"Host": host})
        response = connection.getresponse()
        expect("status", response.status, 200)
        expect("first line", response.readline(), b"tick\n")
        yield response
    finally:
        connection.close()


def idle(services):
    """Idle: to zero after the timeout, not before, and only a request wakes it."""
    platform = services.platform
    host = services.deploy("idle")
    platform.get(host)
    began = time.monotonic()
    with step("it stays for as long as it may be idle"):
        steady(services, "idle", 1, IDLE - 1.5 - (time.monotonic() - began))
    with step("then it goes"):
        services.reaches("idle", 0)
    with step("and does not come back by itself"):
        steady(services, "idle", 0, 1)
    with step("a request wakes it"):
        expect("status", platform.get(host).status, 200)
        expect("instances", services.count("idle"), 1)


def limits(services):
    """Minimum and maximum, and what happens when they change under load."""
    platform = services.platform
    host = services.deploy("limits", "--min-instances", "2", "--max-instances", "5", concurrency=1)
    with step("the minimum is there without a request, and stays"):
        services.reaches("limits", 2)
        steady(services, "limits", 2, IDLE + 2)
    with step("a lower maximum lets busy instances finish what they have"):
        with asking(platform, host, ["/wait?6000"] * 5) as asked:
            services.reaches("limits", 5)
            services.annotate("limits", maxScale=2)
        expect("statuses", statuses(asked), {200: 5})
        services.reaches("limits", 2)


def split(services):
    """A service's counts are divided over its revisions by traffic."""
    platform = services.platform
    services.deploy("split", concurrency=1)
    first = only(platform, "split")
    services.deploy("split", "--no-traffic", concurrency=1)
    second = (set(revisions(platform, "split")) - {first}).pop()
    platform.lauf("traffic", "split", "--to", f"{first}=75,{second}=25")
    with step("a minimum of four is three and one"):
        services.annotate("split", minScale=4)
        until("3 and 1", LONG, lambda: services.by_revision("split") == {first: 3, second: 1})
    with step("a maximum of four is three and one, however many ask"):
        services.annotate("split", maxScale=4)
        host = platform.host("split")
        with Highest(services, "split") as highest, asking(platform, host, ["/wait?300"] * 40) as asked:
            expect("statuses", statuses(asked), {200: 40})
        if highest.most > 4:
            raise Failed(f"{highest.most} instances")
    with step("a revision that gets nothing any more is drained and gone"):
        platform.lauf("traffic", "split", "--to", f"{second}=100")
        until("only the second", LONG, lambda: set(services.by_revision("split")) == {second})


def revisions(platform, name):
    """The names of a service's revisions."""
    return [revision["metadata"]["name"] for revision in json.loads(platform.lauf("revisions", name, "--format", "json"))]


def only(platform, name):
    """The name of its only revision."""
    names = revisions(platform, name)
    expect("revisions", len(names), 1)
    return names[0]


def manual(services):
    """Manual: exactly so many, whatever is asked, and changed at once."""
    platform = services.platform
    host = services.deploy("manual", "--scaling", "3", concurrency=1)
    with step("three, without a request and with many"):
        services.reaches("manual", 3)
        with Highest(services, "manual") as highest, asking(platform, host, ["/wait?300"] * 20) as asked:
            expect("statuses", statuses(asked), {200: 20})
        expect("most", highest.most, 3)
        steady(services, "manual", 3, IDLE + 1)
    with step("five to one under load loses no request"):
        services.annotate("manual", manualInstanceCount=5)
        services.reaches("manual", 5)
        with Load(platform, host, clients=5, path="/wait?100") as load:
            services.annotate("manual", manualInstanceCount=1)
            services.reaches("manual", 1)
        expect("failures", load.bad_outside([]), [])


def cpu(services):
    """A busy CPU: instances are added although there are slots, and share the requests."""
    platform = services.platform
    busy = services.deploy("busy", "--cpu", "1", "--max-instances", "3",
                           # A machine that is busy with other things gives it little CPU, and that little must be too much.
                           "--scaling-cpu-target", "0.1")
    deaf = services.deploy("deaf", "--cpu", "1", "--max-instances", "3", "--scaling-cpu-target", "disabled")
    with step("one that burns its CPU gets company"):
        with Load(platform, busy, clients=4, path="/burn?100") as load:
            until("more than one instance", LONG, lambda: services.count("busy") > 1)
            moment = time.monotonic()
            load.good_after(moment, LONG, "an answer")

            def spread():
                answers = [what for began, _, good, what in load.answers if good and began > moment]
                return len({answer.json()["id"] for answer in answers}) > 1
            until("the others get requests too", LONG, spread)
        expect("failures", load.bad_outside([]), [])
    with step("unless the CPU is not to count"):
        with Load(platform, deaf, clients=4, path="/burn?100") as load:
            steady(services, "deaf", 1, 4)
        expect("failures", load.bad_outside([]), [])


def streams(services):
    """Long streams: nobody stops an instance that has one, and the others go."""
    platform = services.platform
    host = services.deploy("streams", "--max-instances", "4", concurrency=4)
    with contextlib.ExitStack() as held:
        with step("fourteen of sixteen streams end, and what is idle goes"):
            with contextlib.ExitStack() as short:
                kept = [held.enter_context(stream(platform, host)) for _ in range(2)]
                for _ in range(14):
                    short.enter_context(stream(platform, host))
                services.reaches("streams", 4)
            services.reaches("streams", 1)
        with step("the others have gone on all the time"):
            for response in kept:
                expect("a line", response.readline(), b"tick\n")


def scale_in(services):
    """Scale-in under load: a thousand requests while instances come and go, and none fails."""
    platform = services.platform
    host = services.deploy("tide", "--max-instances", "6", concurrency=2)
    with step("load that swells and ebbs"):
        with Load(platform, host, clients=2, path="/wait?20") as load:
            for _ in range(3):
                with asking(platform, host, ["/wait?400"] * 12) as asked:
                    expect("statuses", statuses(asked), {200: 12})
                most = services.count("tide")
                until("some have gone", LONG, lambda most=most: services.count("tide") < most or most <= 1)
        expect("failures", load.bad_outside([]), [])
        print(f"     {len(load.answers)} requests")


def knative(services):
    """Knative's rules: its window, its target, its initial and activation scale."""
    platform = services.platform
    name = "knative"
    prefix = "autoscaling.knative.dev/"
    services.put(name, {"containerConcurrency": 10}, {
        prefix + "window": "6s", prefix + "target": "2", prefix + "target-utilization-percentage": "100",
        prefix + "max-scale": "5", prefix + "initial-scale": "2", prefix + "activation-scale": "2",
    })
    host = platform.host(name)
    with step("it begins with its initial scale, and goes to zero after its window"):
        expect("starts", platform.lauf("logs", name).count("Instance started in"), 2)
        services.reaches(name, 0)
    with step("it wakes with its activation scale"):
        with stream(platform, host):
            services.reaches(name, 2)
    with step("its target is kept: eight streams, two each"):
        with contextlib.ExitStack() as held:
            for _ in range(8):
                held.enter_context(stream(platform, host))
            services.reaches(name, 4)
        services.reaches(name, 0)
    with step("what it cannot do is refused by name"):
        answer = platform.api("POST", SERVICES, {
            "apiVersion": "serving.knative.dev/v1", "kind": "Service", "metadata": {"name": "hpa", "namespace": "demo"},
            "spec": {"template": {
                "metadata": {"annotations": {prefix + "class": "hpa.autoscaling.knative.dev", prefix + "window": "1s"}},
                "spec": {"containers": [{"image": "app"}]},
            }},
        })
        expect("status", answer.status, 400)
        for word in ("autoscaling.knative.dev/class", "scaling-cpu-target", "autoscaling.knative.dev/window", "6s"):
            if word not in answer.body:
                raise Failed(f"{word} is not in {answer}")


def simulated(services):
    """The simulator learns from a service and plays what it served."""
    platform = services.platform
    host = services.deploy("learned", "--max-instances", "4", concurrency=2)
    with asking(platform, host, ["/wait?300"] * 8) as asked:
        expect("statuses", statuses(asked), {200: 8})
    with step("what was served is played again"):
        def learned():
            text = platform.lauf("simulate", "--from-service", "learned", "--format", "json", "--set", "max=1")
            base, one = json.loads(text)["scenarios"]
            expect("requests", base["totals"]["requests"], 8)
            return base, one
        base, one = until("the log has all requests", LONG, learned)
        expect("served", (base["totals"]["served"], one["totals"]["served"]), (8, 8))
        expect("instances at most", (base["totals"]["mostInstances"], one["totals"]["mostInstances"]), (4, 1))
    with step("the same twice"):
        words = ("simulate", "--from-service", "learned", "--format", "json")
        expect("bytes", platform.lauf(*words), platform.lauf(*words))


STORIES = [burst, ramp, idle, limits, split, manual, cpu, streams, scale_in, knative, simulated]


def main():
    """Runs the stories; the last line is their sum."""
    if os.geteuid() != 0:
        skipped("everything", "needs root for namespaces, mounts and cgroups")
    elif not shutil.which(LAUF):
        skipped("everything", f"there is no {LAUF}; set LAUF_BIN")
    elif not shutil.which("cc"):
        skipped("everything", "cc is not installed")
    else:
        tell(set(sys.argv[1:]))
    print("{passed} passed, {failed} failed, {skipped} skipped".format(**TALLY))
    if TALLY["failed"]:
        return 1
    return 0 if TALLY["passed"] else 77


def tell(asked):
    """All stories that are asked for, or all, on one platform."""
    with tempfile.TemporaryDirectory(prefix="lauf-scaling-app-") as folder:
        app = pathlib.Path(folder) / "rootfs"
        app.mkdir()
        source = pathlib.Path(__file__).with_name("app.c")
        subprocess.run(["cc", "-O1", "-static", "-pthread", "-o", str(app / "app"), str(source)], check=True)
        with step("nothing is left of it"), Platform(idle=f"{IDLE}s") as platform:
            platform.pack("app", app)
            services = Services(platform)
            for story in STORIES:
                if asked and story.__name__ not in asked:
                    continue
                began = time.monotonic()
                print(f"-- {story.__doc__}", flush=True)
                try:
                    story(services)
                except Exception as error:  # A story that breaks is a failure, and the next one must still be told.
                    failed(story.__name__, error if isinstance(error, Failed) else traceback.format_exc(limit=4))
                print(f"     {story.__name__}: {time.monotonic() - began:.1f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main())
