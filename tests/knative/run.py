#!/usr/bin/env python3
"""Drives the unmodified kubectl, and kn where there is one, against Lauf, as a user would, and
judges exit codes and answers.

    LAUF_BIN=target/debug/lauf tests/knative/run.py
        starts `lauf up` on a free port of loopback, with its data in a temporary folder

Every kubectl that is found is tried: that of PATH, those of other versions beside it (Google's SDK
has some), and those that KUBECTL names, divided by colons.
"""

import importlib.util
import json
import os
import pathlib
import queue
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent

# The programs and the platform are those of the test of gcloud.
# They are found beside it, as when it runs by itself.
sys.path.insert(0, str(HERE.parent / "gcloud"))
_spec = importlib.util.spec_from_file_location("lauf_gcloud", HERE.parent / "gcloud" / "run.py")
gcloud = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(gcloud)
Failed, expect = gcloud.Failed, gcloud.expect


class Client:
    """A command line client with a kubeconfig of its own."""

    commands = 0

    def __init__(self, program, config, home):
        self.program = program
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith("CLOUDSDK_")}
        self.environment.update(KUBECONFIG=str(config), HOME=str(home))

    def run(self, *words, fails=None, code=None, stdin=None, environment=None):
        """Runs a command; `fails` is a pattern that the output of one that must fail matches."""
        began = time.monotonic()
        Client.commands += 1
        done = subprocess.run(
            [self.program, *words], input=stdin, capture_output=True, text=True, timeout=300,
            env={**self.environment, **(environment or {})},
        )
        name = pathlib.Path(self.program).name
        print(f"{time.monotonic() - began:5.1f} s  {name} {' '.join(words)}", flush=True)
        text = done.stdout + done.stderr
        if "panic" in text or "goroutine" in text:
            raise Failed(f"it crashed:\n{text}")
        if code is not None:
            expect("exit code", done.returncode, code)
        elif fails is None and done.returncode != 0:
            raise Failed(f"exit {done.returncode}:\n{text}")
        elif fails is not None and done.returncode == 0:
            raise Failed(f"succeeded, but must fail with {fails!r}:\n{text}")
        if fails is not None and not re.search(fails, text, re.S):
            raise Failed(f"failed, but not with {fails!r}:\n{text}")
        return text if fails or code else done.stdout

    def json(self, *words):
        """Runs a command and reads its answer."""
        return json.loads(self.run(*words, "-o", "json"))

    def says(self, pattern, *words, **more):
        """Runs a command whose output matches a pattern."""
        text = self.run(*words, **more)
        if not re.search(pattern, text, re.S):
            raise Failed(f"no {pattern!r} in the output of {' '.join(words)}:\n{text}")
        return text


class Watching:
    """A command that goes on, line by line."""

    def __init__(self, client, *words):
        self.process = subprocess.Popen(
            [client.program, *words], env=client.environment, stdout=subprocess.PIPE, text=True,
        )
        self.lines = queue.Queue()
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        """Takes lines as they come."""
        for line in self.process.stdout:
            self.lines.put(line)

    def until(self, pattern):
        """Waits for a line."""
        seen = []
        while True:
            try:
                line = self.lines.get(timeout=60)
            except queue.Empty:
                raise Failed(f"no line with {pattern!r} in:\n{''.join(seen)}") from None
            seen.append(line)
            if re.search(pattern, line):
                return line

    def stop(self):
        """Ends it."""
        self.process.terminate()
        self.process.wait(10)


def env(service):
    """The environment of a service's container."""
    container = service["spec"]["template"]["spec"]["containers"][0]
    return {e["name"]: e.get("value", "") for e in container.get("env", [])}


def minor(kubectl):
    """The client's version: 33 of v1.33.1."""
    version = json.loads(kubectl.run("version", "--client", "-o", "json"))
    return int(re.match(r"\d+", version["clientVersion"]["minor"]).group())


def discovery(kubectl, version):
    """What there is, and what it is."""
    kubectl.says("v1", "version", *([] if version >= 28 else ["--short"]))
    text = kubectl.run("api-resources", "--api-group=serving.knative.dev")
    for word in ["ksvc", "revisions", "routes", "configurations"]:
        if word not in text:
            raise Failed(f"no {word} among:\n{text}")
    kubectl.says("serving.knative.dev/v1", "api-versions")
    kubectl.says("demo.*Active", "get", "namespaces")
    kubectl.says("yes", "auth", "can-i", "create", "services.serving.knative.dev")
    if version >= 28:
        kubectl.says("admin@", "auth", "whoami")
    kubectl.says("(?s)KIND: +Service.*spec.*status", "explain", "ksvc")
    kubectl.says("(?s)DESCRIPTION:.*env.*image.*ports", "explain",
                 "ksvc.spec.template.spec.containers")
    kubectl.says("limits", "explain", "ksvc", "--recursive")
    kubectl.run("explain", "ksvc.spec.nothing", fails="does not exist|field")


def life(kubectl, folder, version):
    """A service's life, command by command."""
    file = folder / "service.yaml"
    text = (HERE / "service.yaml").read_text()
    file.write_text(text)
    kubectl.run("get", "ksvc", "hello", fails=r'services.serving.knative.dev "hello" not found')
    kubectl.says("created", "apply", "-f", str(file), "--dry-run=server")
    kubectl.run("get", "ksvc", "hello", fails="NotFound")
    kubectl.says("created", "apply", "-f", str(file))
    kubectl.says("condition met", "wait", "--for=condition=Ready", "ksvc/hello", "--timeout=120s")
    # The same file again changes nothing. (kubectl says "configured" wherever a server fills in
    # defaults inside of a list, as Knative's own does.)
    generation = ["get", "ksvc", "hello", "-o", "jsonpath={.metadata.generation}"]
    before = kubectl.run(*generation)
    kubectl.says("unchanged|configured", "apply", "-f", str(file))
    expect("generation", kubectl.run(*generation), before)
    kubectl.run("diff", "-f", str(file), code=0)
    table = kubectl.says(r"NAME +URL +LATESTCREATED +LATESTREADY +READY +REASON", "get", "ksvc")
    if not re.search(r"hello +https?://\S+ +hello-00001\S* +hello-00001\S* +True", table):
        raise Failed(f"not as Knative prints it:\n{table}")
    kubectl.says("hello-00001", "get", "ksvc", "-o", "wide")
    kubectl.says("kind: Service", "get", "ksvc", "hello", "-o", "yaml")
    url = kubectl.run("get", "ksvc", "hello", "-o", "jsonpath={.status.url}")
    for word in ["service.serving", "revision.serving", "route.serving", "configuration.serving"]:
        kubectl.says(f"{word}.knative.dev/hello", "get", "all", "-o", "name")
    kubectl.says("(?s)Name: +hello.*Traffic", "describe", "ksvc", "hello")
    kubectl.says("(?s)CONFIG NAME +GENERATION.*hello-00001.*hello +1", "get", "revisions")
    kubectl.says("hello +http", "get", "routes")
    first = kubectl.run("get", "rev", "-l", "serving.knative.dev/service=hello", "-o",
                        "jsonpath={.items[0].metadata.name}")

    # A watch tells what happens.
    watching = Watching(kubectl, "get", "ksvc", "-w", "--show-labels")
    watching.until("hello")
    kubectl.says("labeled", "label", "ksvc", "hello", "team=blue")
    watching.until("team=blue")
    kubectl.run("label", "ksvc", "hello", "team=red", fails="overwrite")
    kubectl.says("labeled", "label", "ksvc", "hello", "team=red", "--overwrite")
    watching.until("team=red")
    watching.stop()
    kubectl.says("hello", "get", "ksvc", "-l", "team=red,app in (hello)", "-o", "name")
    expect("none", kubectl.run("get", "ksvc", "-l", "team=blue", "-o", "name"), "")
    kubectl.run("label", "ksvc", "hello", "team-")
    kubectl.says("annotate", "annotate", "ksvc", "hello", "example.dev/note=hi")
    expect("annotation", kubectl.run(
        "get", "ksvc", "hello", "-o", r"jsonpath={.metadata.annotations.example\.dev/note}"), "hi")

    # Changes of the file: shown, then made.
    file.write_text(text.replace('value: "World"', 'value: "Moon"'))
    kubectl.says(r"(?s)-\s+value: World.*\+\s+value: Moon", "diff", "-f", str(file), code=1)
    kubectl.says("configured", "apply", "-f", str(file))
    kubectl.run("wait", "--for=condition=Ready", "ksvc/hello", "--timeout=120s")
    expect("environment", env(kubectl.json("get", "ksvc", "hello")), {"TARGET": "Moon"})
    # What the file no longer says is gone; what others said stays.
    hello = kubectl.json("get", "ksvc", "hello")
    expect("note", hello["metadata"]["annotations"]["example.dev/note"], "hi")

    # By hand, in an editor.
    editor = folder / "editor"
    editor.write_text("#!/bin/sh\nsed -i 's/value: Moon/value: Mars/' \"$1\"\n")
    editor.chmod(0o755)
    kubectl.says("edited", "edit", "ksvc", "hello", environment={"KUBE_EDITOR": str(editor)})
    expect("environment", env(kubectl.json("get", "ksvc", "hello")), {"TARGET": "Mars"})

    # Every kind of patch.
    variable = {"name": "B", "value": "2"}
    path = "/spec/template/spec/containers/0/env/-"
    kubectl.says("patched", "patch", "ksvc", "hello", "--type=json", "-p",
                 json.dumps([{"op": "add", "path": path, "value": variable}]))
    kubectl.says("patched", "patch", "ksvc", "hello", "--type=merge", "-p",
                 '{"spec":{"template":{"spec":{"timeoutSeconds":60}}}}')
    kubectl.says("patched", "patch", "ksvc", "hello", "--type=strategic", "-p", json.dumps(
        {"spec": {"template": {"spec": {"containers": [
            {"name": "", "env": [{"name": "C", "value": "3"}, {"name": "B", "$patch": "delete"}]},
        ]}}}}))
    hello = kubectl.json("get", "ksvc", "hello")
    expect("environment", env(hello), {"TARGET": "Mars", "C": "3"})
    expect("timeout", hello["spec"]["template"]["spec"]["timeoutSeconds"], 60)
    kubectl.run("patch", "ksvc", "hello", "--type=json", "-p",
                '[{"op":"test","path":"/metadata/name","value":"x"}]', fails="(?i)test|invalid")

    # Half of the requests to an older revision.
    kubectl.run("wait", "--for=condition=Ready", "ksvc/hello", "--timeout=120s")
    split = json.dumps({"spec": {"traffic": [
        {"revisionName": first, "percent": 50, "tag": "old"},
        {"latestRevision": True, "percent": 50},
    ]}})
    kubectl.run("patch", "ksvc", "hello", "--type=merge", "-p", split)
    kubectl.run("wait", "--for=condition=Ready", "ksvc/hello", "--timeout=120s")
    traffic = kubectl.json("get", "ksvc", "hello")["status"]["traffic"]
    expect("shares", sorted(t["percent"] for t in traffic), [50, 50])
    old = next(t for t in traffic if t["revisionName"] == first)
    if "://old---" not in old["url"]:
        raise Failed(f"no URL for the tag: {old}")
    answers(url)

    # Mistakes are told in Knative's words, and change nothing.
    file.write_text(text.replace("percent: 100", "percent: 90"))
    kubectl.run("apply", "-f", str(file), fails="Traffic targets sum to 90, want 100")
    file.write_text(text.replace("containers:", "containres:"))
    kubectl.run("apply", "-f", str(file), fails="containres")
    file.write_text(text.replace("containerPort: 8080", "containerPort: 8080\n              name: x"))
    kubectl.run("apply", "-f", str(file), fails="Port name x is not allowed")
    file.write_text(text.replace("containerConcurrency: 0", "volumes: [{name: v, emptyDir: {}}]"))
    kubectl.run("apply", "-f", str(file), fails="(?i)volume")

    # Revisions: one that nothing needs may go.
    file.write_text(text)
    kubectl.run("apply", "-f", str(file))
    kubectl.run("wait", "--for=condition=Ready", "ksvc/hello", "--timeout=120s")
    kubectl.says("deleted", "delete", "revision", first)
    latest = kubectl.run("get", "ksvc", "hello", "-o", "jsonpath={.status.latestReadyRevisionName}")
    kubectl.run("delete", "revision", latest, fails="cannot be deleted")
    kubectl.says("(?s)Name: +hello-", "describe", "revision", latest)
    kubectl.run("scale", "ksvc", "hello", "--replicas=2", fails="(?i)not find|no kind|cannot|scale")
    answers(url)


def server_side(kubectl, folder):
    """Managers that share an object."""
    file = folder / "service.yaml"
    text = (HERE / "service.yaml").read_text()
    file.write_text(text)
    # From the older way of applying to the newer.
    kubectl.says("serverside-applied", "apply", "--server-side", "-f", str(file))
    kubectl.says("serverside-applied", "apply", "--server-side", "-f", str(file))
    other = folder / "other.yaml"
    other.write_text(
        "apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {name: hello}\n"
        "spec:\n  template:\n    spec:\n      containers:\n"
        "      - name: ''\n        env: [{name: EXTRA, value: 'yes'}]\n")
    kubectl.says("applied", "apply", "--server-side", "--field-manager=robot", "-f", str(other))
    expect("environment", env(kubectl.json("get", "ksvc", "hello")),
           {"TARGET": "World", "EXTRA": "yes"})
    # Without the other's variable in the file, it stays.
    kubectl.run("apply", "--server-side", "-f", str(file))
    expect("environment", env(kubectl.json("get", "ksvc", "hello")),
           {"TARGET": "World", "EXTRA": "yes"})
    other.write_text(other.read_text().replace("EXTRA, value: 'yes'", "TARGET, value: 'Moon'"))
    apply = ["apply", "--server-side", "--field-manager=robot", "-f", str(other)]
    kubectl.run(*apply, fails='(?s)Apply failed with 1 conflict.*TARGET')
    kubectl.says("applied", *apply, "--force-conflicts")
    expect("environment", env(kubectl.json("get", "ksvc", "hello")), {"TARGET": "Moon"})
    kubectl.run("apply", "--server-side", "-f", str(file), fails='conflict with "robot"')
    kubectl.run("diff", "--server-side", "--force-conflicts", "-f", str(file), code=1)


def ending(kubectl, folder):
    """Made otherwise, replaced, deleted."""
    file = folder / "service.yaml"
    text = (HERE / "service.yaml").read_text().replace("name: hello", "name: again", 1)
    file.write_text(text)
    kubectl.says("created", "create", "-f", str(file), "--dry-run=server")
    kubectl.says("created", "create", "-f", str(file))
    kubectl.run("create", "-f", str(file), fails="already exists")
    file.write_text(text.replace('value: "World"', 'value: "Venus"'))
    kubectl.says("replaced", "replace", "-f", str(file))
    expect("environment", env(kubectl.json("get", "ksvc", "again")), {"TARGET": "Venus"})
    kubectl.says("again", "get", "ksvc", "--chunk-size=1", "-o", "name")
    kubectl.says("again", "get", "ksvc", "-A", "--field-selector=metadata.name=again")
    kubectl.run("delete", "ksvc", "again", "--cascade=orphan", fails="(?i)orphan")
    kubectl.says("deleted", "delete", "-f", str(file))
    kubectl.run("get", "ksvc", "again", fails="NotFound")
    kubectl.says("deleted", "delete", "ksvc", "--all")
    expect("left", kubectl.run("get", "ksvc,rev,rt,cfg", "-o", "name"), "")
    kubectl.run("delete", "ksvc", "hello", fails="NotFound")


def answers(url):
    """The service serves."""
    request = urllib.request.Request(url)
    if "localhost" in url:
        # glibc does not know names below localhost.
        host, port = re.match(r"https?://([^:/]+):?(\d*)", url).groups()
        request = urllib.request.Request(f"http://127.0.0.1:{port}/", headers={"Host": host})
    request.add_header("Authorization", f"Bearer {answers.token}")
    with urllib.request.urlopen(request, timeout=60) as reply:
        expect("answer", reply.read(), b"ok\n")


def clients():
    """Every kubectl there is, once each."""
    found = [p for p in os.environ.get("KUBECTL", "").split(":") if p]
    on_path = shutil.which("kubectl")
    if on_path:
        found.append(on_path)
        beside = pathlib.Path(on_path).resolve().parent.glob("kubectl.1.*")
        versions = sorted(beside, key=lambda p: int(p.suffix[1:]))
        # The oldest and the newest: what differs between them differs in between too.
        found += [str(p) for p in (versions[:1] + versions[-1:])]
    return list(dict.fromkeys(found))


def kn_story(kn, folder):
    """kn's own way of the same."""
    kn.says("created", "service", "create", "knowing", "--image=hello", "--env=A=1")
    kn.says("knowing", "service", "list")
    first = kn.json("service", "describe", "knowing")["status"]["latestReadyRevisionName"]
    kn.run("service", "update", "knowing", "--env=A=2", "--scale-max=3")
    kn.says(first, "revision", "list", "-s", "knowing")
    kn.run("service", "update", "knowing", f"--traffic={first}=50", "--traffic=@latest=50")
    kn.says("50%", "service", "describe", "knowing")
    kn.says("deleted", "service", "delete", "knowing", "--wait")
    expect("left", kn.json("service", "list")["items"], [])


def main():
    """Runs the stories with every client."""
    programs = clients()
    if not programs:
        print("SKIP kubectl: there is none on this machine (Debian's package kubernetes-client)")
        print("0 passed, 0 failed, 1 skipped")
        return 77
    skipped = 0
    lauf = os.environ["LAUF_BIN"]
    with tempfile.TemporaryDirectory(prefix="lauf-knative-") as temporary:
        folder, port = pathlib.Path(temporary), gcloud.free_port()
        data = ["--data", str(folder / "data")]
        server, pairs = gcloud.platform(lauf, port, folder)
        answers.token = pairs["CLOUDSDK_AUTH_ACCESS_TOKEN"]
        config = folder / "kubeconfig"
        try:
            setup = [lauf, "kubeconfig", "--kubeconfig", str(config), *data]
            subprocess.run(setup, check=True)
            for program in programs:
                kubectl = Client(program, config, folder)
                version = minor(kubectl)
                print(f"--- {program}: 1.{version}", flush=True)
                discovery(kubectl, version)
                life(kubectl, folder, version)
                server_side(kubectl, folder)
                ending(kubectl, folder)
            program = shutil.which("kn")
            if program:
                kn_story(Client(program, config, folder), folder)
            else:
                skipped += 1
                print("SKIP kn: there is none on this machine, and its Go module (knative.dev/client)"
                      " is not among those that can be had")
            subprocess.run([*setup, "--undo"], check=True)
            expect("a kubeconfig after --undo", config.exists(), False)
        except (Failed, subprocess.SubprocessError) as failure:
            print(f"FAIL knative: {failure}")
            print(f"{Client.commands - 1} passed, 1 failed, {skipped} skipped")
            return 1
        finally:
            subprocess.run([lauf, "down", "--purge", *data], check=False)
            server.wait(60)
    print(f"{Client.commands} passed, 0 failed, {skipped} skipped")
    return 0


if __name__ == "__main__":
    sys.exit(main())
