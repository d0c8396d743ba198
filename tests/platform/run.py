#!/usr/bin/env python3
"""The platform as its users meet it, in stories: from zero and back, killed at any moment, with bad apps and bad clients.

    LAUF_BIN=target/debug/lauf tests/platform/run.py [STORY ...]

Each story has a platform of its own in a temporary folder, and ends with `lauf down --purge` and the proof that nothing is left.
"""

import concurrent.futures
import contextlib
import hashlib
import json
import os
import pathlib
import random
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback

import health
import jobs
import pools
import runtimes
from platform_under_test import LAUF, Failed, Load, Platform, alive, until
from telling import TALLY, expect, failed, passed, skipped, step

KILLS = 10
# How long the platform may take to be back. Generous: the machine may be busy with other things.
RECOVERY = 20
APP = pathlib.Path()


def hello(platform, *words):
    """Deploys the good citizen and gives its host."""
    platform.pack("app", APP)
    platform.lauf("deploy", "hello", "--image", "app", "--allow-unauthenticated", *words)
    return platform.host("hello")


def spread(times):
    """Durations in words."""
    ms = sorted(round(t * 1000) for t in times)
    return f"p50 {ms[len(ms) // 2]} ms, slowest {ms[-1]} ms"


# The stories.

def zero():
    """From zero, back to zero, and again."""
    with Platform(idle="1s") as platform:
        host = hello(platform)
        ids = []
        for turn in ("first", "second", "third"):
            with step(f"{turn} time to zero and from zero"):
                until("no instance is left", 20, lambda: platform.services()["hello"]["instances"] == 0)
                began = time.monotonic()
                answer = platform.get(host, "/info")
                took = time.monotonic() - began
                expect("status", answer.status, 200)
                ids.append(answer.json()["id"])
                expect("instances", platform.services()["hello"]["instances"], 1)
                print(f"     from zero in {took * 1000:.0f} ms")
        with step("each start is a new process"):
            expect("processes", len(set(ids)), 3)


def server_killed():
    """kill -9 of the server under load: instances live on."""
    with Platform() as platform:
        host = hello(platform)
        before = platform.get(host, "/info").json()
        windows, times = [], []
        with Load(platform, host) as load:
            with step(f"kill -9 of the server {KILLS} times: the instance lives on"):
                for turn in range(KILLS):
                    time.sleep(random.uniform(0.05, 0.4))
                    killed = time.monotonic()
                    platform.kill_server()
                    platform.up()
                    back = load.good_after(killed, RECOVERY, "a good answer after the kill")
                    # Requests that came while it was down may wait in the new server until it has adopted.
                    windows.append((killed, back))
                    times.append(back - killed)
                    now = platform.get(host, "/info").json()
                    expect(f"process after kill {turn + 1}", now["id"], before["id"])
                    if now["served"] <= before["served"] or now["uptime_ms"] <= before["uptime_ms"]:
                        raise Failed(f"counters do not go on: {before} then {now}")
                    before = now
                    expect("instances", platform.services()["hello"]["instances"], 1)
        with step("no request failed but while the server was down"):
            bad = load.bad_outside(windows)
            if bad:
                raise Failed(f"{len(bad)} of {len(load.answers)}, the first: {bad[0]}")
        with step("a server that is not ready yet refuses or keeps waiting, it never gives a wrong answer"):
            wrong = load.wrong()
            if wrong:
                raise Failed(f"{len(wrong)} of {len(load.answers)}, the first: {wrong[0]}")
        if times:
            print(f"     kill to answer: {spread(times)}; {len(load.answers)} requests")


def keeper_killed():
    """kill -9 of the keeper under load: the service recovers by itself."""
    with Platform() as platform:
        host = hello(platform)
        times = []
        with Load(platform, host) as load:
            with step(f"kill -9 of the keeper {KILLS} times: served again by itself, nothing of the old one lives"):
                for turn in range(KILLS):
                    time.sleep(random.uniform(0.05, 0.4))
                    times.append(one_keeper_kill(platform, load, host, both=False))
            if times:
                print(f"     kill to answer: {spread(times)}")
            times = []
            with step("kill -9 of the server and the keeper at once, 3 times"):
                for turn in range(3):
                    time.sleep(random.uniform(0.05, 0.4))
                    times.append(one_keeper_kill(platform, load, host, both=True))
            if times:
                print(f"     both, kill to answer: {spread(times)}")


def one_keeper_kill(platform, load, host, both):
    """Kills the keeper, and the server with it or not; how long the service was away."""
    keeper = until("there is one keeper", 10, platform.keeper)
    family = platform.family()
    platform.remember()
    old = platform.get(host, "/info").json()["id"]
    killed = time.monotonic()
    os.kill(keeper, 9)
    if both:
        platform.kill_server()
        platform.up()

    def renewed():
        # Until the server has seen that the keeper is gone, the old instance may still answer for a moment.
        answer = platform.get(host, "/info", timeout=RECOVERY)
        return answer.status == 200 and answer.json()["id"] != old
    until("a new instance answers", RECOVERY, renewed)
    back = time.monotonic()
    load.good_after(back, RECOVERY, "the load is served again")
    until("all of the old keeper's processes are gone", 10, lambda: not [p for p in family if alive(p)])
    if not both and platform.server.poll() is not None:
        raise Failed(f"the server ended with {platform.server.returncode}")
    return back - killed


def killed_in_deploys():
    """kill -9 of the server in the middle of deploys: what was accepted becomes ready."""
    with Platform() as platform:
        platform.pack("app", APP)
        names = [f"s{n}" for n in range(4)]
        accepted, tried = {}, {}
        lock = threading.Lock()

        def deploy(name, turn):
            tried[name] = turn
            with contextlib.suppress(Failed):
                platform.lauf("deploy", name, "--image", "app", "--allow-unauthenticated", "--async",
                              "--set-env-vars", f"ROUND={turn}")
                with lock:
                    accepted[name] = turn

        with step(f"kill -9 of the server {KILLS} times within deploys: all become ready by themselves"):
            for turn in range(KILLS):
                threads = [threading.Thread(target=deploy, args=(name, turn)) for name in names]
                for thread in threads:
                    thread.start()
                time.sleep(random.uniform(0.0, 0.25))
                platform.kill_server()
                for thread in threads:
                    thread.join()
                platform.up()
            print(f"     accepted last: {accepted}")
            services = platform.services()
            for name in accepted:
                if name not in services:
                    raise Failed(f"{name} was accepted in round {accepted[name]} and is not there")
            if not services:
                raise Failed("no deploy was ever accepted")
            for name in services:
                condition = until(f"{name} is ready", 30, lambda name=name: ready(platform, name))
                expect(name, condition, "True")
                service = platform.services()[name]
                answer = platform.get(service["url"].split("://")[1], "/info")
                expect(f"{name} answers", answer.status, 200)
                turn = int(answer.json()["round"])
                if not accepted.get(name, 0) <= turn <= tried[name]:
                    raise Failed(f"{name} serves round {turn}; accepted was {accepted.get(name)}, tried {tried[name]}")


def ready(platform, name):
    """True when ready; raises with the condition when not yet."""
    condition = platform.condition(name)
    if condition[0] != "True":
        raise Failed(str(condition))
    return condition[0]


def bad_apps():
    """Bad apps end in the right condition, and a neighbour notices nothing."""
    with Platform() as platform:
        host = hello(platform)
        with Load(platform, host, clients=1) as load:
            with concurrent.futures.ThreadPoolExecutor(8) as pool:
                for future in [pool.submit(bad_app, platform, *case) for case in CASES]:
                    future.result()
            for story in (fork_bomb, eats_on_request, ignores_term, floods, image_for_another_platform):
                story(platform)
        with step("the neighbour answered 200 the whole time"):
            bad = load.bad_outside([])
            if bad or len(load.answers) < 50:
                raise Failed(f"{len(bad)} of {len(load.answers)} failed, the first: {bad[:1]}")
            print(f"     {len(load.answers)} requests, slowest {max(e - b for b, e, _, _ in load.answers) * 1000:.0f} ms")


QUICK = {"tcpSocket": {}, "periodSeconds": 1, "timeoutSeconds": 1, "failureThreshold": 2}
LISTEN = r"(?i)failed to start and listen on the port defined.*PORT=8080"
CASES = [
    ("exits", {"image": "app", "env": [{"name": "MODE", "value": "exits"}]}, LISTEN, "cannot find my settings"),
    ("never-listens", {"image": "app", "startupProbe": QUICK, "env": [{"name": "MODE", "value": "never-listens"}]}, LISTEN, None),
    ("wrong-port", {"image": "app", "startupProbe": QUICK, "env": [{"name": "MODE", "value": "wrong-port"}]}, LISTEN, None),
    ("no-command", {"image": "app", "command": ["/no/such/program"]}, r"/no/such/program", None),
    ("eats", {"image": "app", "resources": {"limits": {"memory": "128Mi"}}, "env": [{"name": "MODE", "value": "eats"}]},
     r"(?i)memory limit of 128 MiB exceeded", "Memory limit of 128 MiB exceeded"),
    ("no-image", {"image": "no-such-image:v1"}, r"(?i)no-such-image:v1.*not found", None),
]


def bad_app(platform, name, container, message, log):
    """One service that cannot become ready."""
    with step(f"bad app: {name}"):
        platform.create(name, container)
        status, text = platform.settled(name)
        expect("Ready", status, "False")
        if not re.search(message, text, re.S):
            raise Failed(f"the condition says {text!r}, not {message!r}")
        if log:
            until(f"{log!r} is in the log", 10, lambda: log in platform.lauf("logs", name, "--limit", "50"))
        answer = platform.get(platform.host(name), timeout=30)
        if answer.status not in (404, 503):
            raise Failed(f"a request to it got {answer}")
        print(f"     {name}: {text[:300]}")


def fork_bomb(platform):
    """Forks without bound."""
    with step("bad app: forks without bound; when deleted, all are gone"):
        platform.create("forks", {"image": "app", "startupProbe": QUICK, "env": [{"name": "MODE", "value": "forks"}]})
        status, text = platform.settled("forks")
        expect("Ready", status, "False")
        if not re.search(LISTEN, text, re.S):
            raise Failed(f"the condition says {text!r}")
        platform.lauf("delete", "forks", "--quiet")
        until("the bomb's processes are gone", 20, lambda: len(platform.family()) < 40)


def eats_on_request(platform):
    """Takes all memory while it answers."""
    with step("an app that eats all memory on a request: 500 or 503 with the reason, the next request is served"):
        platform.lauf("deploy", "eater", "--image", "app", "--memory", "128Mi", "--allow-unauthenticated")
        host = platform.host("eater")
        answer = platform.get(host, "/eat")
        if answer.status not in (500, 503) or "memory" not in answer.body:
            raise Failed(f"the request got {answer}")
        print(f"     {answer}")
        until("the log tells", 10, lambda: re.search(r"Memory limit of 128 MiB exceeded with \d+ MiB used",
                                                      platform.lauf("logs", "eater", "--limit", "50")))
        expect("the next request", platform.get(host, "/").status, 200)


def ignores_term(platform):
    """Does not end when asked to."""
    with step("an app that ignores SIGTERM is gone at most some 10 s after its service is deleted"):
        platform.lauf("deploy", "stays", "--image", "app", "--allow-unauthenticated", "--set-env-vars", "MODE=ignores-term")
        expect("it serves", platform.get(platform.host("stays")).status, 200)
        before = platform.family()
        began = time.monotonic()
        platform.lauf("delete", "stays", "--quiet")
        until("the service is gone", 20, lambda: "stays" not in platform.services())
        until("its process is gone", 20, lambda: len([p for p in before if alive(p)]) < len(before))
        print(f"     gone after {time.monotonic() - began:.1f} s")


def floods(platform):
    """Writes much in one line."""
    with step("an app that writes 200 MB without a newline serves and does not grow the platform without bound"):
        platform.lauf("deploy", "floods", "--image", "app", "--allow-unauthenticated", "--set-env-vars", "MODE=floods")
        expect("it serves", platform.get(platform.host("floods")).status, 200)
        status = pathlib.Path(f"/proc/{platform.server.pid}/status").read_text()
        peak = int(re.search(r"VmHWM:\s+(\d+)", status).group(1)) // 1024
        size = sum(f.stat().st_size for f in platform.data.rglob("*") if f.is_file()) >> 20
        print(f"     server's peak {peak} MiB, data folder {size} MiB")
        if peak > 400 or size > 700:
            raise Failed(f"the server took {peak} MiB of memory, the data folder has {size} MiB")


def image_for_another_platform(platform):
    """Imports an OCI layout that says it is for another machine."""
    with step("bad app: image for another platform"):
        with tempfile.TemporaryDirectory() as folder:
            other = "arm64" if os.uname().machine != "aarch64" else "amd64"
            layout(pathlib.Path(folder), other)
            done = subprocess.run(["tar", "-cf", f"{folder}/image.tar", "-C", f"{folder}/layout", "."], check=False)
            expect("tar", done.returncode, 0)
            platform.lauf("image", "import", f"{folder}/image.tar", "-t", "foreign")
        platform.create("foreign", {"image": "foreign"})
        status, text = platform.settled("foreign")
        expect("Ready", status, "False")
        if other not in text:
            raise Failed(f"the condition says {text!r}")
        print(f"     foreign: {text[:300]}")


def layout(folder, architecture):
    """Writes an OCI layout with one small layer."""
    blobs = folder / "layout/blobs/sha256"
    blobs.mkdir(parents=True)

    def blob(media, data):
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"mediaType": f"application/vnd.oci.image.{media}", "digest": f"sha256:{digest}", "size": len(data)}

    subprocess.run(["tar", "-cf", f"{folder}/layer.tar", "-C", str(APP), "app"], check=True)
    layer = blob("layer.v1.tar", (folder / "layer.tar").read_bytes())
    config = blob("config.v1+json", json.dumps({
        "architecture": architecture, "os": "linux", "config": {"Entrypoint": ["/app"]},
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
    }).encode())
    manifest = blob("manifest.v1+json", json.dumps({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": [layer],
    }).encode())
    manifest["platform"] = {"architecture": architecture, "os": "linux"}
    manifest["annotations"] = {"org.opencontainers.image.ref.name": "latest"}
    (folder / "layout/oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    (folder / "layout/index.json").write_text(json.dumps({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [manifest],
    }))


def bad_clients():
    """Malformed HTTP is refused, and the app never sees it."""
    with Platform() as platform:
        host = hello(platform)
        start = f"POST / HTTP/1.1\r\nHost: {host}\r\n".encode()
        smuggled = f"GET /smuggled HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
        cases = {
            "Content-Length and Transfer-Encoding": (
                start + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled, "close"),
            "two Content-Lengths": (start + b"Content-Length: 0\r\nContent-Length: 44\r\n\r\n" + smuggled, 400),
            "Content-Length list": (start + b"Content-Length: 0, 44\r\n\r\n" + smuggled, 400),
            "negative Content-Length": (start + b"Content-Length: -1\r\n\r\n", 400),
            "chunked twice": (start + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n" + smuggled, 400),
            "chunked in disguise": (start + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + smuggled, 400),
            "bad chunk size": (start + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n", None),
            "endless chunk size": (start + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 40 + b"\r\nabc\r\n", None),
            "header of 100 KiB": (start + b"X-Big: " + b"a" * 102400 + b"\r\n\r\n", None),
            "a thousand headers": (start + b"".join(b"X-%d: a\r\n" % n for n in range(1000)) + b"\r\n", None),
            "space before the colon": (start + b"Content-Length : 4\r\n\r\nabcd", 400),
            "line folding": (start + b"X-A: b\r\n Content-Length: 4\r\n\r\n", 400),
            "no Host": (b"GET / HTTP/1.1\r\n\r\n", 400),
            "two Hosts": (start + b"Host: other\r\n\r\n", 400),
            "garbage": (bytes(range(256)) * 4, None),
            "a method that is none": (b"GE\x00T / HTTP/1.1\r\n\r\n", None),
            "version of the future": (f"GET / HTTP/3.7\r\nHost: {host}\r\n\r\n".encode(), None),
            "TLS garbage": (b"\x16\x03\x01\x02\x00" + b"\xff" * 512, None),
            "HTTP/2 preface and garbage": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 512, None),
        }
        for what, (data, wanted) in cases.items():
            with step(f"bad client: {what}"):
                text, closed = raw(platform.port, data)
                statuses = re.findall(rb"HTTP/1\.1 (\d{3})", text)
                if wanted is None and not all(s[:1] in (b"4", b"5") for s in statuses):
                    raise Failed(f"answered {text[:300]!r}")
                # RFC 9112, section 6.3: a server may also read it by its Transfer-Encoding alone, if it then closes.
                if wanted == "close" and len(statuses) == 1 and closed:
                    wanted = None
                    statuses = []
                if wanted is not None and (not statuses or not all(s[:1] == b"4" for s in statuses)):
                    raise Failed(f"answered {text[:300]!r}, wanted {wanted}")
                expect("the next good request", platform.get(host).status, 200)
        with step("bad client: half a header, then closed"):
            for _ in range(20):
                with socket.create_connection(("127.0.0.1", platform.port)) as client:
                    client.sendall(b"GET / HT")
                    time.sleep(0.01)
            expect("the next good request", platform.get(host).status, 200)
        with step("bad client: half a body, then closed"):
            for _ in range(20):
                with socket.create_connection(("127.0.0.1", platform.port)) as client:
                    client.sendall(start + b"Content-Length: 100\r\n\r\nabc")
                    time.sleep(0.01)
            expect("the next good request", platform.get(host).status, 200)
        with step("bad client: 200 that send a letter a while do not keep others away"):
            slow = [socket.create_connection(("127.0.0.1", platform.port)) for _ in range(200)]
            for client in slow:
                client.sendall(b"G")
            expect("a good request", platform.get(host).status, 200)
            for client in slow:
                client.close()
        with step("none of it reached the app, and the server never stumbled"):
            expect("the server", platform.server.poll(), None)
            log = platform.log()
            if "panicked" in log:
                raise Failed(log)
            text = platform.lauf("logs", "hello", "--limit", "1000", "--format", "json")
            if "/smuggled" in text:
                raise Failed("a smuggled request was served")


def raw(port, data):
    """Sends bytes and reads until the other side closes or says nothing for a while; what came, and whether it closed."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
        got, closed = b"", False
        try:
            client.sendall(data)
            client.settimeout(2)
            while len(got) < 65536:
                part = client.recv(65536)
                if not part:
                    closed = True
                    break
                got += part
        except ConnectionError:
            closed = True
        except TimeoutError:
            pass
        return got, closed


def traffic():
    """Shares, tags, rollback, and a revision that fails."""
    with Platform() as platform:
        host = hello(platform, "--set-env-vars", "TEXT=one")
        first = platform.services()["hello"]["latestReadyRevision"]
        with step("a new revision without traffic is reached by its tag alone"):
            platform.lauf("deploy", "hello", "--set-env-vars", "TEXT=two", "--no-traffic", "--tag", "green")
            second = platform.services()["hello"]["latestReadyRevision"]
            if second == first:
                raise Failed("no new revision")
            expect("main", {platform.get(host).body for _ in range(20)}, {"one"})
            expect("tag", platform.get(f"green---{host}").body, "two")
        with step("50 and 50"):
            platform.lauf("traffic", "hello", "--to", f"{first}=50,{second}=50")
            texts = [platform.get(host).body for _ in range(400)]
            counts = {text: texts.count(text) for text in set(texts)}
            print(f"     of 400: {counts}")
            # Six standard deviations of a fair coin.
            if set(counts) != {"one", "two"} or not 140 <= counts["one"] <= 260:
                raise Failed(f"of 400: {counts}")
        with step("100 and 0, then back"):
            platform.lauf("traffic", "hello", "--to", f"{second}=100")
            expect("all to the second", {platform.get(host).body for _ in range(50)}, {"two"})
            platform.lauf("traffic", "hello", "--to", f"{first}=100")
            expect("rollback", {platform.get(host).body for _ in range(50)}, {"one"})
        with step("a revision that fails leaves the old one serving, and a good one after it takes over"):
            platform.lauf("traffic", "hello", "--to", "LATEST=100")
            expect("latest", platform.get(host).body, "two")
            with Load(platform, host, clients=2, path="/") as load:
                error = platform.lauf("deploy", "hello", "--set-env-vars", "TEXT=three,MODE=exits", fails=True)
                if "failed to start" not in error:
                    raise Failed(f"the deploy said {error!r}")
                expect("Ready", platform.condition("hello")[0], "False")
                expect("still", {platform.get(host).body for _ in range(20)}, {"two"})
                platform.lauf("deploy", "hello", "--set-env-vars", "TEXT=four")
                expect("Ready", platform.condition("hello")[0], "True")
                until("the new one answers", 10, lambda: platform.get(host).body == "four")
            bad = load.bad_outside([])
            if bad:
                raise Failed(f"{len(bad)} of {len(load.answers)} requests failed, the first: {bad[0]}")
            seen = {what.body for _, _, _, what in load.answers}
            if not seen <= {"two", "four"}:
                raise Failed(f"seen {seen}")


def purge():
    """`lauf down --purge` with the network and running instances leaves nothing."""
    if not shutil.which("nft") or not shutil.which("ip"):
        skipped("nothing is left of links and rules", "nft or ip is not installed")
    egress = bool(shutil.which("nft") and shutil.which("ip"))
    for what, ending in (("a running platform", lambda p: None),
                         ("a killed server", lambda p: p.kill_server()),
                         ("a killed keeper and server", both_killed)):
        with step(f"nothing is left after `lauf down --purge` of {what}"):
            with Platform(egress=egress) as platform:
                host = hello(platform)
                expect("status", platform.get(host).status, 200)
                platform.remember()
                if egress and platform.link is None:
                    raise Failed("the platform has no network")
                # The search must find what is there, or it would prove nothing.
                found = " ".join(platform.leftovers())
                for kind in ["folder", "cgroup", "process", *(["link", "nftables"] if egress else [])]:
                    if kind not in found:
                        raise Failed(f"the search for what is left finds no {kind}: {found[:500]}")
                ending(platform)
    with step("down keeps the data, and the next up serves it"):
        with Platform() as platform:
            host = hello(platform)
            platform.lauf("down")
            platform.server.wait(10)
            platform.up()
            expect("status", platform.get(platform.host("hello")).status, 200)
            expect("host", platform.host("hello"), host)


def both_killed(platform):
    """Server and keeper gone at once, with no time to tidy up."""
    keeper = platform.keeper()
    platform.kill_server()
    os.kill(keeper, 9)


def probes():
    """Probes: an app that turns unhealthy is replaced, one that is not ready gets no requests, one that is slow is waited for."""
    with Platform() as platform:
        platform.pack("app", APP)
        health.tell(platform)


def full():
    """A machine that is full: 429, a line in the log, a condition that says why, and room again."""
    with Platform(idle="1s", options=["--max-instances", "3"]) as platform:
        host = hello(platform)
        until("it is at zero", 20, lambda: platform.services()["hello"]["instances"] == 0)
        platform.create("filler", {"image": "app"}, least=3, most=3)
        until("three instances fill the machine", 30, lambda: platform.services()["filler"]["instances"] == 3)
        with step("a request for which there is no room is 429, and the log says why"):
            expect("status", platform.get(host).status, 429)
            until("the log tells", 10, lambda: "There is no room for another instance: 3 instances run on this machine"
                  in platform.lauf("logs", "hello", "--limit", "50"))
        with step("a deploy for which there is no room says so"):
            platform.create("late", {"image": "app"})
            until("the condition says so", 20, lambda: "There is no room for another instance" in platform.condition("late")[1])
        with step("when others have gone there is room again"):
            platform.lauf("delete", "filler", "--quiet")
            until("200", 30, lambda: platform.get(host).status == 200)
        with step("and the deploy that waited for it comes through"):
            expect("Ready", platform.settled("late")[0], "True")


def oci_runtimes():
    """Other runtimes: the same platform over runc, crun and gVisor."""
    runtimes.tell(hello, RECOVERY)



def job_tasks():
    """Jobs: tasks that end well, badly and not at all."""
    with Platform() as platform:
        jobs.pack(platform)
        jobs.tell(platform)


def killed_in_jobs():
    """kill -9 of server and keeper in the middle of jobs: no task lost, none run after it succeeded."""
    with Platform() as platform:
        jobs.pack(platform)
        jobs.killed(platform, KILLS)
        jobs.keeper_killed(platform, lambda p: os.kill(p.keeper(), 9))


def worker_pools():
    """Worker pools: as many instances as asked for, whatever happens to them."""
    with Platform() as platform:
        pools.tell(platform)


STORIES = [zero, server_killed, keeper_killed, killed_in_deploys, bad_apps, bad_clients, traffic, probes, full, job_tasks, killed_in_jobs,
           worker_pools, oci_runtimes, purge]


def main():
    """Runs the stories; the last line is their sum."""
    global APP
    if os.geteuid() != 0:
        skipped("everything", "needs root for namespaces, mounts and cgroups")
    elif not shutil.which(LAUF):
        skipped("everything", f"there is no {LAUF}; set LAUF_BIN")
    elif not shutil.which("cc"):
        skipped("everything", "cc is not installed")
    else:
        asked = set(sys.argv[1:])
        with tempfile.TemporaryDirectory(prefix="lauf-platform-app-") as folder:
            APP = pathlib.Path(folder) / "rootfs"
            APP.mkdir()
            source = pathlib.Path(__file__).with_name("app.c")
            subprocess.run(["cc", "-O1", "-static", "-o", str(APP / "app"), str(source)], check=True)
            for story in STORIES:
                if asked and story.__name__ not in asked:
                    continue
                began = time.monotonic()
                print(f"-- {story.__doc__}", flush=True)
                try:
                    story()
                except Exception as error:  # A story that breaks is a failure, and the next one must still be told.
                    failed(story.__name__, error if isinstance(error, Failed) else traceback.format_exc(limit=4))
                print(f"     {story.__name__}: {time.monotonic() - began:.1f} s", flush=True)
    print("{passed} passed, {failed} failed, {skipped} skipped".format(**TALLY))
    if TALLY["failed"]:
        return 1
    return 0 if TALLY["passed"] else 77


if __name__ == "__main__":
    sys.exit(main())
