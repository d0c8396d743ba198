"""The platform over every OCI runtime there is on the machine: what a user sees is the same as with the own one."""

import os
import re
import shutil
import subprocess

from platform_under_test import Failed, Platform, until
from telling import expect, skipped, step

# Other versions than those on PATH, with `:` between them.
MORE = "LAUF_TEST_RUNTIMES"
# gVisor needs a second for each start, on a machine that is not busy.
LONG = 60


def found(name):
    """The runtimes of a name, as (path, version)."""
    paths = [shutil.which(name)] + [path for path in os.environ.get(MORE, "").split(":") if os.path.basename(path) == name]
    for path in filter(None, paths):
        done = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            yield path, done.stdout.split("\n")[0].split()[-1]


def too_old(name, version):
    """gVisor of 2022 cannot start a container in a user namespace."""
    day = re.match(r"(?:0\.0~|release-)(\d{8})", version)
    return name == "runsc" and bool(day) and day[1] < "2023"


def tell(hello, recovery):
    """Each runtime, with a platform of its own."""
    for name in ("runc", "crun", "runsc"):
        usable = [(path, version) for path, version in found(name) if not too_old(name, version)]
        if not usable:
            skipped(f"the platform over {name}", f"there is none that can be used here: {list(found(name)) or 'not installed'}")
        for path, version in usable:
            over(f"{name} {version}", path, hello, recovery)
    refused()


def over(what, path, hello, recovery):
    """From zero, logs, a crash, a server that is killed; the end of the context proves that nothing is left."""
    with Platform(options=["--runtime", path]) as platform:
        host = hello(platform)
        with step(f"{what}: a request is served, and what the app says is in the log"):
            before = until("the first answer", LONG, lambda: platform.get(host, "/info")).json()["id"]
            until("the app's line", LONG, lambda: "listening" in platform.lauf("logs", "hello", "--limit", "50"))
        with step(f"{what}: a killed server's instance serves on"):
            platform.kill_server()
            platform.up()
            answer = until("it answers", recovery, lambda: platform.get(host, "/info"))
            expect("the instance", answer.json()["id"], before)
        with step(f"{what}: an app that eats all memory is ended, the log says so, and the next request is served"):
            platform.lauf("deploy", "eater", "--image", "app", "--memory", "256Mi", "--allow-unauthenticated")
            eater = platform.host("eater")
            expect("the request", platform.get(eater, "/eat").status in (500, 503), True)
            until("the log tells", LONG, lambda: "Memory limit of 256 MiB exceeded" in platform.lauf("logs", "eater", "--limit", "50"))
            expect("the next request", until("an answer", LONG, lambda: platform.get(eater, "/")).status, 200)
        with step(f"{what}: a command that does not exist is named in the condition"):
            platform.create("typo", {"image": "app", "command": ["/no-such-command"]})
            status, text = platform.settled("typo", LONG)
            expect("Ready", status, "False")
            if "/no-such-command" not in text:
                raise Failed(f"the condition says {text!r}")
        with step(f"{what}: nothing is left of a keeper and a server that were killed"):
            os.kill(until("there is one keeper", 10, platform.keeper), 9)
            platform.kill_server()


def refused():
    """A program that is no runtime."""
    with step("a program that is no OCI runtime is refused with a text that says so"):
        try:
            with Platform(options=["--runtime", "/bin/false"]):
                raise Failed("lauf up started")
        except RuntimeError as error:
            if "/bin/false does not answer to --version" not in str(error):
                raise Failed(f"it said {error}") from None
