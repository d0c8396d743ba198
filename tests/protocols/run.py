#!/usr/bin/env python3
"""Protocols through the gateway, told by other people's programs.

    LAUF_BIN=target/debug/lauf tests/protocols/run.sh [STORY ...]

The programs come from `run.sh`, in `TOOLS`. They resolve names, so each runs in a mount namespace of its own whose
/etc/hosts knows the services.
"""

import contextlib
import http.client
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import traceback

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "platform"))
import websocket  # noqa: E402
from platform_under_test import LAUF, Failed, Platform, until  # noqa: E402
from telling import TALLY, expect, failed, skipped, step  # noqa: E402

TOOLS = pathlib.Path(os.environ.get("TOOLS", "."))
LONG = 90
# A line of curl's cookie jars, for a host and a value.
COOKIE = "{}\tFALSE\t/\tFALSE\t0\tGAESA\t{}\n"
# What an HTTP/2 client cannot begin with is HTTP/1 on a port that speaks both, and is refused with 400 in its words.
NOT_ON_A_SHARED_PORT = "Sends invalid connection preface"
# The cases of gRPC's interop suite that its Go client and server both know and that need no credentials of Google's:
# https://github.com/grpc/grpc/blob/master/doc/interop-test-descriptions.md
INTEROP = [
    "empty_unary", "large_unary", "client_streaming", "server_streaming", "ping_pong", "empty_stream",
    "timeout_on_sleeping_server", "cancel_after_begin", "cancel_after_first_response", "status_code_and_message",
    "special_status_message", "custom_metadata", "unimplemented_method", "unimplemented_service",
]


class World:
    """One platform with two services, and the app once more beside it."""

    def __init__(self, platform, folder, direct):
        self.platform, self.folder, self.direct = platform, folder, direct
        self.hosts = {}
        self.names = folder / "hosts"
        self.authority = platform.data / "tls/ca.pem"

    def deploy(self, name, program, *words):
        """A service with one of the programs of `TOOLS`, open to all."""
        root = self.folder / name
        root.mkdir()
        shutil.copy(TOOLS / program, root / "app")
        self.platform.pack(name, root)
        self.platform.lauf("deploy", name, "--image", name, "--allow-unauthenticated", *words)
        self.hosts[name] = self.platform.host(name).rsplit(":", 1)[0]
        self.names.write_text(f"127.0.0.1 localhost {' '.join(self.hosts.values())}\n")

    def line(self, *words):
        """The command line of a program that finds the services by name."""
        inside = 'mount --bind "$0" /etc/hosts && exec "$@"'
        return ["unshare", "--mount", "sh", "-c", inside, str(self.names), *map(str, words)]

    def run(self, *words, seconds=LONG):
        """Such a program, to its end."""
        return subprocess.run(self.line(*words), capture_output=True, text=True, errors="replace", timeout=seconds,
                              check=False, stdin=subprocess.DEVNULL)

    @contextlib.contextmanager
    def reading(self, *words):
        """A curl that goes on while it is read from, for at most a minute; what it gets comes as it comes."""
        line = self.line("curl", "--silent", "--no-buffer", "--max-time", "60", "--cacert", self.authority, *words)
        with subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as curl:
            yield curl.stdout
            expect("the end of curl", curl.wait(LONG), 0)

    def curl(self, path, *words, scheme="http"):
        """curl to the web service; its output, and what it said of the transfer as JSON."""
        url = f"{scheme}://{self.hosts['web']}:{self.platform.port}{path}"
        done = self.run("curl", "--silent", "--show-error", "--max-time", "60", "--cacert", self.authority,
                        "--write-out", "%{stderr}%{json}", *words, url)
        if done.returncode != 0:
            raise Failed(f"curl {path}: exit {done.returncode}: {done.stderr[:300]}")
        return done.stdout, json.loads(done.stderr[done.stderr.index("{"):])


def http2(world):
    """h2spec, over TLS and without."""
    for how, words, but in (("TLS", ["-t", "-k"], None), ("cleartext", [], NOT_ON_A_SHARED_PORT)):
        report = world.folder / f"h2spec-{how}.xml"
        done = world.run(TOOLS / "h2spec", "-h", world.hosts["web"], "-p", world.platform.port, "-o", "5", "-j", report,
                         *words, seconds=300)
        told = 0
        for suite in report.read_text().split("<testsuite ")[1:]:
            for case in re.findall(r"<testcase .*?(?=<testcase |</testsuite>)", suite, re.S):
                name = re.search(r'classname="([^"]*)"', case)[1]
                told += 1
                if name == but:
                    continue
                with step(f"h2spec, {how}: {re.search('package=.([^ ]*?).? ', case)[1]} {name}"):
                    if wrong := re.search(r"<(failure|error)[^>]*>(.*?)</", case, re.S):
                        raise Failed(wrong[2])
        if told < 140:
            failed(f"h2spec, {how}", f"only {told} cases were told: {done.stdout[-500:]} {done.stderr[-500:]}")


def grpc(world):
    """The interop suite of gRPC, over TLS and without."""
    for how, words in (("TLS", ["-use_tls", "-use_test_ca", "-ca_file", world.authority]), ("cleartext", [])):
        for case in INTEROP:
            with step(f"gRPC interop, {how}: {case}"):
                done = world.run(TOOLS / "client", "-server_host", world.hosts["grpc"], "-server_port", world.platform.port,
                                 "-test_case", case, *words)
                if done.returncode != 0:
                    raise Failed(f"exit {done.returncode}: {done.stderr[-600:]}")


def websockets(world):
    """Each case through the gateway and without it."""
    through = ("127.0.0.1", world.platform.port)
    for name, writes, headers in websocket.cases():
        with step(f"WebSocket {name}"):
            wanted = websocket.outcome(("127.0.0.1", world.direct), "direct", writes, headers)
            expect("what comes through the gateway", websocket.outcome(through, world.hosts["web"], writes, headers), wanted)
    with step("WebSocket: a handshake of the wrong version is answered by the app"):
        body, told = world.curl("/ws", "-H", "Connection: Upgrade", "-H", "Upgrade: websocket", "-H", "Sec-WebSocket-Version: 7")
        expect("answer", (told["response_code"], body), (400, "Bad Request\n"))


def curl(world):
    """What curl can do, over each version."""
    for how, scheme, words in (("HTTP/1.1", "http", ["--http1.1"]), ("h2c", "http", ["--http2-prior-knowledge"]),
                               ("HTTP/1.1 over TLS", "https", ["--http1.1"]), ("HTTP/2 over TLS", "https", ["--http2"])):
        http1 = "1.1" in how

        def ask(path, *more):
            return world.curl(path, *words, *more, scheme=scheme)

        with step(f"curl, {how}: a page, in that version"):
            body, told = ask("/")
            expect("answer", (body, told["response_code"]), ("hello\n", 200))
            expect("version", told["http_version"], "1.1" if http1 else "2")
        with step(f"curl, {how}: what the app sees of the client"):
            hop = ["-H", "Connection: X-Hop", "-H", "X-Hop: 1"] if http1 else []
            seen = json.loads(ask("/headers?a=%2F&b", "-H", "X-Own: mine", *hop)[0])
            headers = seen["headers"]
            expect("path", seen["uri"], "/headers?a=%2F&b")
            expect("scheme", headers["X-Forwarded-Proto"], [scheme])
            expect("client", headers["X-Forwarded-For"], ["127.0.0.1"])
            expect("own header", headers["X-Own"], ["mine"])
            expect("hop-by-hop", [name for name in ("X-Hop", "Connection", "Keep-Alive") if name in headers], [])
            if not re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]", headers["Traceparent"][0]):
                raise Failed(f"traceparent is {headers['Traceparent']}")
        with step(f"curl, {how}: HEAD has no body and keeps the length"):
            head, told = ask("/bytes?1000", "--head")
            expect("length", ("content-length: 1000" in head.lower(), told["size_download"]), (True, 0))
        with step(f"curl, {how}: 20 MiB up and down again, byte for byte"):
            blob = world.folder / "blob"
            if not blob.exists():
                blob.write_bytes(os.urandom(20 << 20))
            back = world.folder / "back"
            ask("/echo", "--data-binary", f"@{blob}", "-H", "Expect: 100-continue", "--output", str(back))
            expect("the same", back.read_bytes() == blob.read_bytes(), True)
        with step(f"curl, {how}: an upload of unknown length"):
            with open(world.folder / "small", "wb") as small:
                small.write(b"x" * 100_000)
            unknown = "Transfer-Encoding: chunked" if http1 else "Content-Length:"
            body, told = ask("/echo", "-T", str(world.folder / "small"), "-H", unknown)
            expect("echo", (told["response_code"], len(body)), (200, 100_000))
        if http1:
            with step(f"curl, {how}: an answer before the body was read reaches the client"):
                expect("status", ask("/early", "--data-binary", f"@{world.folder / 'blob'}")[1]["response_code"], 413)
        with step(f"curl, {how}: trailers of the app"):
            wanted = ["-H", "TE: trailers", "--dump-header", "-"]
            text = ask("/trailers", *wanted)[0].lower()
            expect("trailers", ("x-sum: 4" in text, "x-end: yes" in text), (True, True))
        with step(f"curl, {how}: server-sent events, each while the next is not there yet"):
            url = f"{scheme}://{world.hosts['web']}:{world.platform.port}/events"
            with world.reading(*words, url) as events:
                for n in range(3):
                    if n > 0:
                        ask("/go")
                    expect("event", [events.readline() for _ in range(3)], [f"id: {n}\n", f"data: event {n}\n", "\n"])
                expect("the rest", events.read(), "")


def nghttp2(world):
    """nghttp sees frames; h2load sends many streams on few connections, to the end."""
    if shutil.which("nghttp") is None or shutil.which("h2load") is None:
        skipped("nghttp2", "nghttp and h2load are not installed: apt install nghttp2-client")
        return
    # curl takes the stop that follows the answer (RFC 9113, section 8.1) for an error.
    for how, scheme in (("h2c", "http"), ("TLS", "https")):
        with step(f"nghttp, {how}: an answer before the body was read, then a stop that is no error"):
            blob = world.folder / "unread"
            blob.write_bytes(bytes(20 << 20))
            done = world.run("nghttp", "--verbose", "--no-verify-peer", "--data", blob,
                             f"{scheme}://{world.hosts['web']}:{world.platform.port}/early")
            expect("status", ":status: 413" in done.stdout, True)
            expect("stop", re.findall(r"recv RST_STREAM.*\n *\(error_code=(\w+)", done.stdout), ["NO_ERROR"])
    for how, scheme, words in (("h2c", "http", []), ("TLS", "https", []), ("HTTP/1.1", "http", ["--h1"])):
        with step(f"h2load, {how}: 20,000 requests, 8 connections, none lost"):
            done = world.run("h2load", "-n", "20000", "-c", "8", "-m", "1" if words else "50", *words,
                             f"{scheme}://{world.hosts['web']}:{world.platform.port}/")
            seen = re.search(r"status codes: (\d+) 2xx", done.stdout)
            expect("2xx", seen and seen[1], "20000")


def affinity(world):
    """A browser's cookie jar, with one and with another service revision."""
    world.deploy("sticky", "app", "--session-affinity", "--concurrency", "1", "--min-instances", "3")
    platform, host = world.platform, world.hosts["sticky"]
    until("three instances are there", LONG, lambda: platform.services()["sticky"]["instances"] == 3)

    def who(jar):
        done = world.run("curl", "--silent", "--fail", "--max-time", "60", "--cookie", jar, "--cookie-jar", jar,
                         f"http://{host}:{platform.port}/who")
        if done.returncode != 0:
            raise Failed(f"curl: exit {done.returncode}: {done.stderr}")
        return done.stdout

    @contextlib.contextmanager
    def busy(jar):
        """A request that is under way; gives who has it."""
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", platform.port, timeout=LONG)) as upload:
            upload.putrequest("POST", "/echo", skip_host=True)
            upload.putheader("Host", host)
            upload.putheader("Transfer-Encoding", "chunked")
            if jar.exists():
                upload.putheader("Cookie", f"GAESA={jar.read_text().split()[-1]}")
            upload.endheaders()
            upload.send(b"1\r\nx\r\n")
            answer = upload.getresponse()
            expect("echo", answer.read(1), b"x")
            if given := answer.getheader("Set-Cookie"):
                jar.write_text(COOKIE.format(host, re.match("GAESA=([^;]+)", given)[1]))
            yield answer.getheader("X-Who")
            upload.send(b"0\r\n\r\n")
            expect("the rest", answer.read(), b"")

    jars = [world.folder / f"jar{n}" for n in range(3)]
    with contextlib.ExitStack() as under_way:
        first = [under_way.enter_context(busy(jar)) for jar in jars]
    with step("affinity: three clients at once have an instance each, and keep it when they come one after another"):
        expect("instances", len(set(first)), 3)
        for _ in range(5):
            expect("again", [who(jar) for jar in jars], first)
    with step("affinity: a client whose instance is busy gets another"):
        with busy(jars[0]) as at_work:
            expect("the busy one", at_work, first[0])
            other = world.folder / "other"
            shutil.copy(jars[0], other)
            seen = who(other)
            expect("another", seen in first[1:], True)
            expect("and stays with that", who(other), seen)
    with step("affinity: it goes before the split of the traffic"):
        platform.lauf("deploy", "sticky", "--image", "sticky", "--no-traffic", "--tag", "next")
        old = first[0].split()[0]
        platform.lauf("traffic", "sticky", "--to", f"{old}=1,LATEST=99")
        expect("still", [who(jars[0]) for _ in range(10)], [first[0]] * 10)
    with step("affinity: an instance whose revision has no traffic is left, for one that is then kept"):
        platform.lauf("traffic", "sticky", "--to", "LATEST=100")
        now = until("the new revision answers", LONG, lambda: (seen := who(jars[0])) != first[0] and seen)
        expect("revision", now.split()[0] != old, True)
        expect("kept", [who(jars[0]) for _ in range(5)], [now] * 5)
    with step("affinity: a cookie that says nothing is no error"):
        jar = world.folder / "nonsense"
        jar.write_text(COOKIE.format(host, "nonsense"))
        expect("answer", who(jar).split()[0], now.split()[0])
        expect("a better one", "nonsense" in jar.read_text(), False)


def self_signed(folder, stem, *names):
    """A certificate for some names that is its own root."""
    done = subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "9",
                           "-subj", "/CN=test", "-addext", "subjectAltName=" + ",".join(f"DNS:{name}" for name in names),
                           "-keyout", folder / f"{stem}.key", "-out", folder / f"{stem}.pem"],
                          capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Failed(done.stderr)
    return folder / f"{stem}.pem", folder / f"{stem}.key"


def certificates(world):
    """A platform with a certificate of somebody else's, which is then renewed."""
    if shutil.which("openssl") is None:
        skipped("certificates", "openssl is not installed: apt install openssl")
        return
    folder = world.folder / "certificates"
    folder.mkdir()
    names = ["*.us-central1.run.test", "run.test"]
    pem, key = self_signed(folder, "site", *names)
    options = ["--domain", "run.test", "--tls-certificate", str(pem), "--tls-key", str(key)]
    with Platform(options=options) as platform:
        own = World(platform, folder, world.direct)
        own.deploy("web", "app")
        url = platform.services()["web"]["url"]
        with step("certificates: a service's URL is https, and serves with the certificate of the file"):
            expect("scheme", url.split("://")[0], "https")
            own.authority = pem
            expect("answer", own.curl("/", scheme="https")[0], "hello\n")
        with step("certificates: names that it is not for have one of the platform's authority"):
            done = own.run("curl", "--silent", "--cacert", platform.data / "tls/ca.pem", "--resolve",
                           f"run.googleapis.com:{platform.port}:127.0.0.1", "--write-out", "%{response_code}", "--output", "/dev/null",
                           f"https://run.googleapis.com:{platform.port}/")
            expect("curl", done.returncode, 0)
        with step("certificates: a renewed one is served without a restart"):
            before = pem.read_bytes()
            self_signed(folder, "site", *names)
            old = folder / "old.pem"
            old.write_bytes(before)
            until("the new one is served", LONG, lambda: own.curl("/", scheme="https")[0] == "hello\n")
            own.authority = old
            try:
                own.curl("/", scheme="https")
            except Failed as error:
                if "certificate" not in str(error):
                    raise
            else:
                raise Failed("the old certificate is still served")
    with step("certificates: a key of another certificate is refused, and both files are named"):
        other = self_signed(folder, "other", "run.test")[1]
        try:
            with Platform(options=[*options[:-1], str(other)]):
                raise Failed("lauf up started")
        except RuntimeError as error:
            if "site.pem and" not in str(error) or "do not belong together" not in str(error):
                raise Failed(f"it said {error}") from None


@contextlib.contextmanager
def beside():
    """The app without a gateway; gives its port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    app = subprocess.Popen([TOOLS / "app"], env={"PORT": str(port)}, stdin=subprocess.DEVNULL)
    try:
        until("the app listens", 20, lambda: socket.create_connection(("127.0.0.1", port), 1).close() or True)
        yield port
    finally:
        app.kill()
        app.wait()


STORIES = [http2, grpc, websockets, curl, nghttp2, affinity, certificates]


def main(wanted):
    """Tells the stories that were asked for, or all."""
    if os.geteuid() != 0:
        skipped("protocols", "root is needed")
    elif shutil.which(LAUF) is None:
        skipped("protocols", f"there is no {LAUF}")
    else:
        with tempfile.TemporaryDirectory() as folder, beside() as direct, step("nothing is left of it"), Platform() as platform:
            world = World(platform, pathlib.Path(folder), direct)
            world.deploy("web", "app")
            world.deploy("grpc", "server", "--use-http2", "--args=-port=8080")
            for story in STORIES:
                if wanted and story.__name__ not in wanted:
                    continue
                began = time.monotonic()
                try:
                    story(world)
                except Exception:
                    failed(story.__name__, traceback.format_exc(limit=4))
                print(f"     {story.__name__}: {time.monotonic() - began:.0f} s", flush=True)
    print(f"{TALLY['passed']} passed, {TALLY['failed']} failed, {TALLY['skipped']} skipped")
    if not TALLY["passed"] and not TALLY["failed"]:
        return 77
    return 1 if TALLY["failed"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
