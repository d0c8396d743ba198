"""One `lauf up` with a data folder of its own: started, killed, started again, and gone without a trace at the end."""

import contextlib
import http.client
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time

LAUF = os.environ.get("LAUF_BIN", "lauf")


class Failed(Exception):
    """Something is not as it should be."""


def until(what, seconds, check):
    """Asks again and again until `check` gives something true; fails with the last thing it gave or raised."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            seen = check()
            if seen:
                return seen
        except (OSError, http.client.HTTPException, KeyError, ValueError, Failed) as error:
            seen = repr(error)
        if time.monotonic() > deadline:
            raise Failed(f"{what}: not within {seconds} s; last seen: {seen}")
        time.sleep(0.01)


class Answer:
    """What a server answered."""

    def __init__(self, status, body):
        self.status, self.body = status, body

    def json(self):
        """The body, read as JSON."""
        return json.loads(self.body)

    def __str__(self):
        return f"{self.status} {self.body[:300]!r}"


def fetch(port, host, path="/", method="GET", body=None, headers=None, timeout=30):
    """One request over a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request(method, path, body, {"Host": host, **(headers or {})})
        answer = connection.getresponse()
        return Answer(answer.status, answer.read().decode("utf-8", "replace"))
    finally:
        connection.close()


class Platform:
    """A running Lauf. As a context it ends with `lauf down --purge` and the proof that nothing is left."""

    def __init__(self, idle="15m", egress=False, options=()):
        self.data = pathlib.Path(tempfile.mkdtemp(prefix="lauf-platform-"))
        self.options = ["--idle-timeout", idle, "--egress", "true" if egress else "false", *options]
        self.port = 0
        self.server = None
        self.seen = set()
        self.tag = None
        self.link = None

    def __enter__(self):
        try:
            self.up()
        except BaseException:
            self.purge()
            raise
        return self

    def __exit__(self, kind, error, trace):
        if kind is not None and self.log().strip():
            print(f"     the server said: {self.log().strip()[-1500:]}")
        left = self.purge()
        if left and kind is None:
            raise Failed(f"left behind: {'; '.join(left)}")
        for line in left:
            print(f"     left behind: {line}")

    def log(self):
        """What the server wrote to stderr."""
        with contextlib.suppress(OSError):
            return (self.data.parent / f"{self.data.name}.log").read_text()
        return ""

    def up(self):
        """Starts the server and waits until it says where it is. The port of the first start is kept."""
        with contextlib.suppress(FileNotFoundError):
            (self.data / "server.json").unlink()
        with open(self.data.parent / f"{self.data.name}.log", "ab") as log:
            self.server = subprocess.Popen(
                [LAUF, "up", "--data", str(self.data), "--listen", f"127.0.0.1:{self.port}", *self.options],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log,
            )

        def there():
            if self.server.poll() is not None:
                raise RuntimeError(f"lauf up ended with {self.server.returncode}: {self.log()[-1500:]}")
            return (self.data / "server.json").exists()

        until("lauf up says where it is", 30, there)
        self.port = int(json.loads((self.data / "server.json").read_text())["address"].rsplit(":", 1)[1])
        self.token = (self.data / "admin.token").read_text().strip()
        self.remember()

    def kill_server(self):
        """kill -9."""
        self.server.kill()
        self.server.wait()

    def keeper(self):
        """The process id of the keeper: the one of this data folder whose parent is not one of them."""
        mine = {pid for pid in processes() if str(self.data / "keeper") in command(pid) and "keeper" in command(pid)}
        roots = [pid for pid in mine if parent(pid) not in mine]
        return roots[0] if len(roots) == 1 else None

    def family(self):
        """All that descends from the keeper, instances included, as (pid, start time)."""
        tree = {self.keeper()}
        pairs = [(pid, parent(pid)) for pid in processes()]
        grown = True
        while grown:
            more = {pid for pid, above in pairs if above in tree} - tree
            tree |= more
            grown = bool(more)
        return {(pid, born(pid)) for pid in tree if pid}

    def remember(self):
        """Notes by what names this platform's cgroups, links and processes can be known later."""
        keeper = self.keeper()
        if keeper is None:
            return
        name = re.search(r'"network":\{"name":"(\w+)"', command(keeper))
        self.link = name.group(1) if name else self.link
        self.seen |= self.family()
        for pid, _ in self.seen:
            group = re.search(r"/(lauf-[0-9a-f]{8})", read(f"/proc/{pid}/cgroup"))
            self.tag = group.group(1) if group else self.tag

    def purge(self):
        """`lauf down --purge`; what is left after it, in words. What it leaves is then removed by force."""
        with contextlib.suppress(Exception):
            self.remember()
        left = []
        done = subprocess.run([LAUF, "down", "--purge", "--data", str(self.data)],
                              capture_output=True, text=True, timeout=60, check=False)
        if done.returncode != 0:
            left.append(f"lauf down --purge said {done.stderr.strip()}")
        if self.server is not None:
            try:
                self.server.wait(5)
            except subprocess.TimeoutExpired:
                left.append("the server")
                self.kill_server()
        left += self.leftovers()
        for pid in processes():
            if str(self.data) in command(pid) and command(pid).startswith(LAUF):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        for line in read("/proc/mounts").splitlines():
            if str(self.data) in line:
                subprocess.run(["umount", "-l", line.split()[1]], check=False)
        shutil.rmtree(self.data, ignore_errors=True)
        with contextlib.suppress(OSError):
            (self.data.parent / f"{self.data.name}.log").unlink()
        return left

    def leftovers(self):
        """What of this platform can still be found on the machine.

        A namespace lives as long as a process is in it or a mount pins it, so it needs no search of its own.
        """
        left = []
        if self.data.exists():
            left.append(f"the folder {self.data}: {sorted(p.name for p in self.data.iterdir())}")
        left += [f"mount {line}" for line in read("/proc/mounts").splitlines() if str(self.data) in line]
        if self.tag:
            left += [f"cgroup {folder}/{self.tag}" for folder, names, _ in os.walk("/sys/fs/cgroup") if self.tag in names]
        for pid in processes():
            if str(self.data) in command(pid):
                left.append(f"process {pid}: {command(pid)[:80]}")
            elif str(self.data) in read(f"/proc/{pid}/mountinfo"):
                left.append(f"process {pid} with a mount of the platform: {command(pid)[:80]}")
            elif self.tag and self.tag in read(f"/proc/{pid}/cgroup"):
                left.append(f"process {pid} in a cgroup of the platform: {command(pid)[:80]}")
            elif (pid, born(pid)) in self.seen:
                left.append(f"process {pid}, a child of the keeper: {command(pid)[:80]}")
        if self.link:
            for what, line in (("link", ["ip", "-o", "link"]), ("nftables", ["nft", "list", "tables"])):
                text = subprocess.run(line, capture_output=True, text=True, check=False).stdout
                left += [f"{what} {found}" for found in text.splitlines() if self.link in found]
        return left

    # What users do.

    def lauf(self, *words, fails=False):
        """Runs a command of the command line."""
        # What follows `--` is not ours.
        end = words.index("--") if "--" in words else len(words)
        line = [LAUF, *words[:end], "--data", str(self.data), *words[end:]]
        done = subprocess.run(line, capture_output=True, text=True,
                              timeout=90, check=False, stdin=subprocess.DEVNULL)
        if (done.returncode != 0) != fails:
            raise Failed(f"lauf {' '.join(words)}: exit {done.returncode}: {done.stderr[-800:]}")
        return done.stderr if fails else done.stdout

    def pack(self, name, folder, entrypoint="/app"):
        """Makes an image."""
        self.lauf("image", "pack", str(folder), "-t", name, "--entrypoint", entrypoint, "--user", "1000:1000")

    def api(self, method, path, body=None):
        """One call to the API."""
        return fetch(self.port, f"127.0.0.1:{self.port}", path, method,
                     None if body is None else json.dumps(body),
                     {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"})

    def services(self):
        """`lauf list`, by name."""
        return {service["name"]: service for service in json.loads(self.lauf("list", "--format", "json"))}

    def host(self, name):
        """The Host header of a service."""
        return self.services()[name]["url"].split("://")[1]

    def get(self, host, path="/", timeout=30):
        """One request to a service, or to the host of one, as the administrator."""
        return fetch(self.port, host, path, timeout=timeout, headers={"Authorization": f"Bearer {self.token}"})

    def create(self, name, container, least=0, most=100, **template):
        """Creates a service through the v1 API, which knows more fields than the command line; so many instances."""
        scale = {"autoscaling.knative.dev/minScale": str(least), "autoscaling.knative.dev/maxScale": str(most)}
        answer = self.api("POST", "/apis/serving.knative.dev/v1/namespaces/demo/services", {
            "apiVersion": "serving.knative.dev/v1", "kind": "Service",
            "metadata": {"name": name, "namespace": "demo"},
            "spec": {"template": {"metadata": {"annotations": scale}, "spec": {"containers": [container], **template}}},
        })
        if answer.status not in (200, 201):
            raise Failed(f"creating {name}: {answer}")

    def condition(self, name):
        """The Ready condition of a service: its status and message."""
        answer = self.api("GET", f"/apis/serving.knative.dev/v1/namespaces/demo/services/{name}")
        if answer.status != 200:
            raise Failed(f"{name}: {answer}")
        service = answer.json()
        if service.get("status", {}).get("observedGeneration") != service["metadata"]["generation"]:
            return "Unknown", "not observed"
        for condition in service["status"].get("conditions", []):
            if condition["type"] == "Ready":
                return condition["status"], condition.get("message", "")
        return "Unknown", "no condition"

    def settled(self, name, seconds=30):
        """The Ready condition once it is True or False."""
        def check():
            condition = self.condition(name)
            if condition[0] == "Unknown":
                raise Failed(str(condition))
            return condition
        return until(f"{name} is decided", seconds, check)


class Load:
    """Clients that ask without a pause, and remember each answer with its time."""

    def __init__(self, platform, host, clients=4, path="/info"):
        self.platform, self.host, self.path = platform, host, path
        self.answers = []
        self.going = True
        self.threads = [threading.Thread(target=self.ask, daemon=True) for _ in range(clients)]

    def ask(self):
        """One client."""
        while self.going:
            began = time.monotonic()
            try:
                answer = self.platform.get(self.host, self.path, timeout=20)
                good, what = answer.status == 200, answer
            except (OSError, http.client.HTTPException) as error:
                good, what = False, repr(error)
            self.answers.append((began, time.monotonic(), good, what))
            time.sleep(0.002 if good else 0.01)

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.going = False
        for thread in self.threads:
            thread.join()

    def good_after(self, moment, seconds, what):
        """Waits for a good answer to a request that began after `moment`; gives the time of the answer."""
        def check():
            for began, ended, good, _ in reversed(self.answers[-200:]):
                if good and began >= moment:
                    return min(e for b, e, g, _ in self.answers[-400:] if g and b >= moment)
            raise Failed(str(self.answers[-1][3]) if self.answers else "no answer")
        return until(what, seconds, check)

    def bad_outside(self, windows):
        """Failed requests that did not touch any of the windows."""
        return [str(what) for began, ended, good, what in self.answers
                if not good and not any(began <= end and ended >= start for start, end in windows)]

    def wrong(self):
        """Answers that are neither good nor a broken connection."""
        return [str(what) for _, _, good, what in self.answers if not good and isinstance(what, Answer)]


# The process table, read without failing on those that go meanwhile.

def read(path):
    """A small file, or nothing."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def processes():
    """All process ids; not of those that ended and wait for their parent to notice."""
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return [pid for pid in pids if stat(pid)[:1] not in ([], ["Z"], ["X"])]


def command(pid):
    """A process's command line."""
    return read(f"/proc/{pid}/cmdline").replace("\0", " ")


def stat(pid):
    """The fields of /proc/PID/stat after the name."""
    return read(f"/proc/{pid}/stat").rpartition(") ")[2].split()


def parent(pid):
    """A process's parent."""
    fields = stat(pid)
    return int(fields[1]) if len(fields) > 1 else None


def born(pid):
    """When a process was started, in ticks; with the pid it names a process for ever."""
    fields = stat(pid)
    return int(fields[19]) if len(fields) > 19 else None


def alive(process):
    """Whether the process named by (pid, start time) runs and is not a zombie."""
    pid, when = process
    return born(pid) == when and when is not None and stat(pid)[0] != "Z"
