"""Probes of a running app. The app is told by signals, from outside, to turn unhealthy; see app.c."""

import concurrent.futures
import json
import os
import pathlib
import re
import signal

from platform_under_test import Failed, alive, command, until
from telling import expect, skipped, step

# Generous: the machine may be busy with other things.
LONG = 60
OFTEN = {"periodSeconds": 1, "timeoutSeconds": 1, "failureThreshold": 2}


class Lost(Exception):
    """A request failed that must not; asking again would hide it."""


def http(path):
    """A probe of a path."""
    return {"httpGet": {"path": path}, **OFTEN}


def tell(platform):
    """All of it, on one platform."""
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        stories = [
            pool.submit(replaced, platform, "sick", http("/live"), signal.SIGUSR2,
                        r'LIVENESS HTTP probe failed 2 times consecutively for container ".*" on port 8080 path "/live"'),
            pool.submit(replaced, platform, "deaf", {"tcpSocket": {}, **OFTEN}, signal.SIGHUP,
                        r"LIVENESS TCP probe failed 2 times consecutively .* on port 8080"),
            pool.submit(out_of_traffic, platform),
            pool.submit(slow, platform),
            pool.submit(too_slow, platform),
            *grpc(pool, platform),
        ]
        for story in stories:
            story.result()


def deploy(platform, name, container, least=0, most=1, **template):
    """A service of the app with so many instances, open to all, when it is ready; gives its host."""
    platform.create(name, {"image": "app", **container}, least=least, most=most, **template)
    status, text = platform.settled(name, LONG)
    if status != "True":
        raise Failed(f"{name}: {text}")
    return platform.host(name)


def instances(platform, name):
    """The processes of a service's instances, as (pid, start time)."""
    def of_service(process):
        return command(process[0]).startswith("/app ") and f"NAME={name}" in environment(process[0])
    return {process for process in platform.family() if of_service(process)}


def environment(pid):
    """The environment of a process, or nothing when it has gone."""
    try:
        with open(f"/proc/{pid}/environ", encoding="utf-8", errors="replace") as file:
            return file.read().split("\0")
    except OSError:
        return []


def replaced(platform, name, probe, sign, log):
    """An instance whose liveness probe fails is ended, and another takes its place."""
    with step(f"liveness, {name}: the instance is ended and replaced, and the log says why"):
        container = {"livenessProbe": probe, "env": [{"name": "NAME", "value": name}]}
        host = deploy(platform, name, container, least=1)
        before = platform.get(host, "/info").json()["id"]
        old = instances(platform, name)
        expect("instances", len(old), 1)
        (pid, _), = old
        os.kill(pid, sign)

        def renewed():
            answer = platform.get(host, "/info")
            return answer.status == 200 and answer.json()["id"] != before
        until("another instance answers", LONG, renewed)
        until("the old one is gone", LONG, lambda: not any(alive(process) for process in old))
        until("the log tells", LONG, lambda: re.search(log, platform.lauf("logs", name, "--limit", "50")))
        now = instances(platform, name)
        # By then the new one has been probed more often than a sick one may be.
        until("the new one has lived for 4 s", LONG, lambda: platform.get(host, "/info").json()["uptime_ms"] > 4000)
        expect("a healthy one stays", instances(platform, name), now)


def grpc(pool, platform):
    """The sample `grpc`, whose health service is that of gRPC's own library."""
    sample = pathlib.Path(os.environ.get("SAMPLES", ""), "grpc")
    if not (sample / "image.json").is_file():
        skipped("gRPC probes", f"the sample is not built in {sample}: cargo xtask images --only grpc, and set SAMPLES")
        return []
    spec = json.loads((sample / "image.json").read_text())
    platform.lauf("image", "pack", str(sample / "rootfs"), "-t", "grpc", "--entrypoint", json.dumps(spec["entrypoint"]),
                  "--workdir", spec["workdir"], "--user", spec["user"], *(f"--env={name}={value}" for name, value in spec["env"].items()))
    return [pool.submit(out_of_service, platform), pool.submit(unknown_service, platform)]


def grpc_container(service, **more):
    """The sample with a startup probe of a service's name."""
    return {"image": "grpc", "ports": [{"name": "h2c", "containerPort": 8080}],
            "startupProbe": {"grpc": {"service": service}, **OFTEN, "failureThreshold": 30}, **more}


def out_of_service(platform):
    """A gRPC server that says of itself that it does not serve."""
    with step("liveness, gRPC: a server that says NOT_SERVING is ended and replaced, and the log says why"):
        probe = {"grpc": {"service": "lauf.samples.route.Route"}, **OFTEN}
        deploy(platform, "route", grpc_container("lauf.samples.route.Route", livenessProbe=probe), least=1)

        def servers():
            return {process for process in platform.family() if "K_SERVICE=route" in environment(process[0])}
        (old,) = until("there is one server", LONG, servers)
        os.kill(old[0], signal.SIGUSR1)
        until("the log tells", LONG, lambda: re.search(
            r"LIVENESS GRPC probe failed 2 times consecutively .* on port 8080.*NOT_SERVING",
            platform.lauf("logs", "route", "--limit", "50")))
        until("the old one is gone", LONG, lambda: not alive(old))
        until("another one runs", LONG, lambda: servers() - {old})


def unknown_service(platform):
    """A probe of a service that the server does not have."""
    with step("startup, gRPC: a probe of a service that the server does not know fails, and the text says so"):
        container = grpc_container("lauf.samples.Other")
        container["startupProbe"]["failureThreshold"] = 3
        platform.create("other", container)
        status, text = platform.settled("other", LONG)
        expect("Ready", status, "False")
        if not re.search(r"STARTUP GRPC probe failed 3 times consecutively .* does not know this service name", text):
            raise Failed(f"the condition says {text!r}")


def out_of_traffic(platform):
    """Of two instances, one says it is not ready, and later that it is."""
    with step("readiness: an instance that is not ready gets no requests, lives on, and gets them again when it is"):
        container = {"readinessProbe": http("/ready"), "env": [{"name": "NAME", "value": "moody"}]}
        host = deploy(platform, "moody", container, least=2, most=2, containerConcurrency=1)

        def seen():
            with concurrent.futures.ThreadPoolExecutor(8) as pool:
                answers = list(pool.map(lambda _: platform.get(host, "/info"), range(32)))
            bad = [str(answer) for answer in answers if answer.status != 200]
            if bad:
                raise Lost(f"{len(bad)} of {len(answers)} requests failed, the first: {bad[0]}")
            return {answer.json()["id"] for answer in answers}
        until("both answer", LONG, lambda: len(seen()) == 2)
        both = instances(platform, "moody")
        expect("instances", len(both), 2)
        moody = min(both)
        os.kill(moody[0], signal.SIGUSR1)
        until("one of them gets no more requests", LONG, lambda: len(seen()) == 1)
        rest = seen()
        for _ in range(5):
            expect("who answers while one is not ready", seen(), rest)
        expect("both live", instances(platform, "moody"), both)
        os.kill(moody[0], signal.SIGUSR1)
        until("both answer again", LONG, lambda: len(seen()) == 2)
        expect("the same two", instances(platform, "moody"), both)


def slow(platform):
    """Fails its startup probe a few times, fewer than it may."""
    with step("startup: an app that says 503 three times of the five it may becomes ready, and only then gets requests"):
        container = {"startupProbe": {**http("/started"), "failureThreshold": 5},
                     "env": [{"name": "REFUSALS", "value": "3"}, {"name": "NAME", "value": "slow"}]}
        host = deploy(platform, "slow", container)
        answer = platform.get(host, "/info").json()
        # Three refusals, the probe that passed, and this request.
        if answer["served"] < 5:
            raise Failed(f"it was asked before it was started: {answer}")


def too_slow(platform):
    """Fails its startup probe more often than it may."""
    with step("startup: an app that says 503 as often as it may is not ready, and the text says what the probe got"):
        container = {"startupProbe": http("/started"), "env": [{"name": "REFUSALS", "value": "1000"}]}
        platform.create("too-slow", {"image": "app", **container})
        status, text = platform.settled("too-slow", LONG)
        expect("Ready", status, "False")
        if not re.search(r'STARTUP HTTP probe failed 2 times consecutively for container ".*" on port 8080 path "/started".*: status 503', text):
            raise Failed(f"the condition says {text!r}")
