"""A `lauf up` of their own for the stories of this folder, and short ways to say what happens."""

import collections
import http.server
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback

import grpc
import requests

PROJECT = "projects/demo"
WAIT = 60


class Failed(Exception):
    """Something was not as it should be."""


class Skipped(Exception):
    """It cannot be tried here."""


def expect(what, got, wanted):
    """Compares, with words for the one who reads the failure."""
    if got != wanted:
        raise Failed(f"{what}: got {got!r}, wanted {wanted!r}")


def fails(kind, part, call):
    """The error that a call must end in."""
    try:
        result = call()
    except kind as error:
        if part not in str(error):
            raise Failed(f"{error!r} does not say {part!r}") from error
        return error
    raise Failed(f"gave {result!r}, but must fail with {kind.__name__}")


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class Server:
    """`lauf up` in a folder of its own."""

    def __init__(self, folder):
        self.folder = folder
        self.data = folder / "data"
        self.port = free_port()
        self.emulator = free_port()
        self.process = None

    def start(self):
        self.process = subprocess.Popen(
            [
                os.environ["LAUF_BIN"], "--data", str(self.data), "up",
                "--listen", f"127.0.0.1:{self.port}", "--pubsub-emulator", f"127.0.0.1:{self.emulator}",
                "--pool", "1",
            ],
            stdout=(self.folder / "up.out").open("ab"), stderr=(self.folder / "up.err").open("ab"),
        )
        deadline = time.monotonic() + WAIT
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise Failed(f"lauf up ended:\n{(self.folder / 'up.err').read_text()}")
            try:
                # What answers without a token answers when all is ready.
                url = f"http://127.0.0.1:{self.port}/oauth2/v3/certs"
                if requests.get(url, timeout=5).json()["keys"]:
                    break
            except (requests.ConnectionError, ValueError):
                pass
            time.sleep(0.05)
        else:
            raise Failed("lauf up is not ready")
        self.token = (self.data / "admin.token").read_text().strip()

    def kill(self):
        """SIGKILL."""
        self.process.kill()
        self.process.wait()

    def down(self):
        subprocess.run(
            [os.environ["LAUF_BIN"], "--data", str(self.data), "down", "--purge"],
            check=False, capture_output=True, timeout=WAIT,
        )
        if self.process:
            self.process.wait(WAIT)

    def lauf(self, *arguments):
        done = subprocess.run(
            [os.environ["LAUF_BIN"], "--data", str(self.data), *arguments],
            capture_output=True, text=True, timeout=WAIT,
        )
        if done.returncode != 0:
            raise Failed(f"lauf {' '.join(arguments)}:\n{done.stdout}{done.stderr}")
        return done.stdout

    def rest(self, method, path, body=None, code=200, version="v1"):
        """A request as curl would send it."""
        answer = requests.request(
            method, f"http://127.0.0.1:{self.port}/{version}/{path}", json=body, timeout=WAIT,
            headers={"authorization": f"Bearer {self.token}"},
        )
        expect(f"{method} {path}: {answer.text}", answer.status_code, code)
        return answer.json()


class Bearer(
    grpc.UnaryUnaryClientInterceptor, grpc.StreamStreamClientInterceptor, grpc.UnaryStreamClientInterceptor
):
    """Adds the token to each call: gRPC sends credentials through TLS alone."""

    def __init__(self, token):
        self.header = ("authorization", f"Bearer {token}")

    def add(self, continuation, details, request):
        metadata = [*(details.metadata or ()), self.header]
        return continuation(details._replace(metadata=metadata), request)

    intercept_unary_unary = intercept_stream_stream = intercept_unary_stream = add


def channel(server):
    """A channel to the API's own address, with the administrator's token."""
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    plain = grpc.insecure_channel(f"127.0.0.1:{server.port}", options=options)
    return grpc.intercept_channel(plain, Bearer(server.token))


def wait_for(what, true, wait=WAIT):
    """Waits until something is true."""
    deadline = time.monotonic() + wait
    while not true():
        if time.monotonic() > deadline:
            raise Failed(f"{what} did not come")
        time.sleep(0.05)


Got = collections.namedtuple("Got", "time method path headers body")


class Sink:
    """An HTTP server that keeps what it gets. Answers are taken from `answers` in turn, then 200."""

    def __init__(self):
        self.got, self.answers, self.delay = [], [], 0.0
        sink = self

        class Handler(http.server.BaseHTTPRequestHandler):
            """Takes everything."""

            def take(self):
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                sink.got.append(Got(time.time(), self.command, self.path, self.headers, body))
                time.sleep(sink.delay)
                self.send_response(sink.answers.pop(0) if sink.answers else 200)
                self.send_header("content-length", "0")
                self.end_headers()

            do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = take

            def log_message(self, *_):
                """Says nothing."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def of(self, path):
        """The requests of a path."""
        return [got for got in self.got if got.path == path]

    def wait(self, path, count=1, wait=WAIT):
        """The first `count` requests of a path, when they have come."""
        wait_for(f"{count} requests of {path}", lambda: len(self.of(path)) >= count, wait)
        return self.of(path)


class Gcloud:
    """The unmodified gcloud, set up by `lauf gcloud env`."""

    def __init__(self, server):
        if not shutil.which("gcloud"):
            raise Skipped("gcloud is not installed")
        self.environment = dict(
            os.environ, CLOUDSDK_CONFIG=str(server.folder / "gcloud"), CLOUDSDK_CORE_DISABLE_PROMPTS="1",
            CLOUDSDK_CORE_DISABLE_USAGE_REPORTING="1", CLOUDSDK_COMPONENT_MANAGER_DISABLE_UPDATE_CHECK="1",
        )
        said = server.lauf("gcloud", "env")
        self.environment.update(re.findall(r"(CLOUDSDK_\w+)=['\"]?([^'\"\s;]*)", said))

    def run(self, line, wrong=None):
        """Runs a command; it must end well, or with an error that says `wrong`."""
        words = line.split(" ") if isinstance(line, str) else line
        line = " ".join(words)
        done = subprocess.run(
            ["gcloud", *words], env=self.environment, capture_output=True, text=True, timeout=300
        )
        print(f"  gcloud {line}", flush=True)
        if "Traceback" in done.stderr or "crashed" in done.stderr:
            raise Failed(f"gcloud crashed:\n{done.stderr}")
        if (done.returncode == 0) == bool(wrong) or (wrong and wrong not in done.stderr):
            raise Failed(f"gcloud {line}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def read(self, line):
        """What a command prints as JSON."""
        return json.loads(self.run(f"{line} --format=json"))


def tell_all(stories):
    """Tells the stories of a server that `stories` yields as (name, story, argument); those alone whose
    names begin with an argument of the command line, if there are any."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    folder = pathlib.Path(tempfile.mkdtemp(prefix="lauf-events-"))
    server = Server(folder)
    tally = {"passed": 0, "failed": 0, "skipped": 0}
    try:
        server.start()
        for name, story, argument in stories(server):
            if sys.argv[1:] and not name.startswith(tuple(sys.argv[1:])):
                continue
            began = time.monotonic()
            try:
                story(argument)
            except Skipped as why:
                tally["skipped"] += 1
                print(f"SKIP {name}: {why}", flush=True)
            except Exception:  # pylint: disable=broad-except
                tally["failed"] += 1
                print(f"FAIL {name}\n{traceback.format_exc()}", flush=True)
            else:
                tally["passed"] += 1
                print(f"{time.monotonic() - began:5.1f} s  {name}", flush=True)
        if tally["failed"]:
            print((folder / "up.err").read_text()[-4000:])
    finally:
        server.down()
        shutil.rmtree(folder, ignore_errors=True)
    print(", ".join(f"{count} {word}" for word, count in tally.items()))
    return 1 if tally["failed"] else 0
