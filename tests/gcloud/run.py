#!/usr/bin/env python3
"""Drives the unmodified gcloud against Lauf, as a user would, and judges exit codes and answers.

    LAUF_BIN=target/debug/lauf tests/gcloud/run.py --image IMAGE [--bad-image IMAGE]
        starts `lauf up` on a free port of loopback, with its data in a temporary folder
    tests/gcloud/run.py --faces SERVE_EXAMPLE
        the API alone (crates/api/examples/serve.rs), where nothing runs and all is ready at once

IMAGE must be one that Lauf can pull without asking anybody; see samples/.
"""

import argparse
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

import jobs
from telling import Failed, expect


class Gcloud:
    """gcloud with a configuration folder of its own."""

    commands = 0

    def __init__(self, environment, folder):
        self.environment = dict(os.environ)
        self.environment.update(environment)
        self.environment.update(
            CLOUDSDK_CONFIG=str(folder / "gcloud"),
            CLOUDSDK_CORE_DISABLE_PROMPTS="1",
            CLOUDSDK_CORE_DISABLE_USAGE_REPORTING="1",
            CLOUDSDK_COMPONENT_MANAGER_DISABLE_UPDATE_CHECK="1",
        )

    def run(self, line, fails=None, stdin=None):
        """Runs a command; `fails` is a pattern that the error of one that must fail matches."""
        began = time.monotonic()
        Gcloud.commands += 1
        done = subprocess.run(
            ["gcloud", *line.split(" ")],
            env=self.environment, input=stdin, capture_output=True, text=True, timeout=300,
        )
        print(f"{time.monotonic() - began:5.1f} s  gcloud {line}", flush=True)
        text = done.stdout + done.stderr
        if "crashed" in text or "Traceback" in text:
            raise Failed(f"gcloud crashed:\n{text}")
        if fails is None and done.returncode != 0:
            raise Failed(f"exit {done.returncode}:\n{text}")
        if fails is not None:
            if done.returncode == 0:
                raise Failed(f"succeeded, but must fail with {fails!r}:\n{text}")
            if not re.search(fails, done.stderr, re.S):
                raise Failed(f"failed, but not with {fails!r}:\n{text}")
            if "ERROR:" not in done.stderr:
                raise Failed(f"failed without an ERROR: line:\n{text}")
        return text if fails else done.stdout

    def json(self, line):
        """Runs a command and reads its answer."""
        return json.loads(self.run(f"{line} --format=json"))


def story(gcloud, image, folder, bad_image):
    """A service's life, command by command."""
    gcloud.run("run services describe hello", fails="Cannot find service")
    # A new service with something that is refused, and without a word on who may call it.
    gcloud.run(f"run deploy hello --image={image} --binary-authorization=default", fails="Binary Authorization")
    gcloud.run("run services describe hello", fails="Cannot find service")
    gcloud.run(f"run deploy hello --image={image} --allow-unauthenticated --set-env-vars=A=1")
    hello = gcloud.json("run services describe hello")
    conditions = {c["type"]: c["status"] for c in hello["status"]["conditions"]}
    expect("Ready", conditions["Ready"], "True")
    first = hello["status"]["latestReadyRevisionName"]
    policy = gcloud.json("run services get-iam-policy hello")
    expect("members", policy["bindings"][0]["members"], ["allUsers"])

    # Every flag that a new revision takes.
    gcloud.run(
        f"run deploy hello --image={image} --no-traffic --tag=green --update-env-vars=B=2 --cpu=2"
        " --memory=1Gi --concurrency=10 --timeout=60 --min-instances=0 --max-instances=5"
        " --cpu-boost --execution-environment=gen2 --labels=team=blue"
    )
    hello = gcloud.json("run services describe hello")
    second = hello["status"]["latestReadyRevisionName"]
    if first == second:
        raise Failed("the second deploy made no revision")
    traffic = {t["revisionName"]: t for t in hello["status"]["traffic"]}
    expect("share of the first", traffic[first].get("percent"), 100)
    if "://green---" not in traffic[second]["url"]:
        raise Failed(f"no URL for the tag: {traffic[second]}")
    spec = hello["spec"]["template"]["spec"]
    expect("concurrency", spec["containerConcurrency"], 10)
    expect("limits", spec["containers"][0]["resources"]["limits"], {"cpu": "2", "memory": "1Gi"})
    env = {e["name"]: e["value"] for e in spec["containers"][0]["env"]}
    expect("environment", env, {"A": "1", "B": "2"})

    gcloud.run(f"run services update-traffic hello --to-revisions={first}=30,{second}=70")
    traffic = gcloud.json("run services describe hello")["status"]["traffic"]
    shares = {t["revisionName"]: t["percent"] for t in traffic if t.get("percent")}
    expect("split", shares, {first: 30, second: 70})
    gcloud.run("run services update-traffic hello --to-latest")
    gcloud.run("run services update-traffic hello --remove-tags=green")
    gcloud.run("run services update hello --concurrency=20 --revision-suffix=third")
    hello = gcloud.json("run services describe hello")
    expect("named revision", hello["status"]["latestReadyRevisionName"], "hello-third")

    text = gcloud.run("run services list")
    if "hello" not in text or hello["status"]["url"] not in text:
        raise Failed(f"not in the list:\n{text}")
    gcloud.run("run services list --region=us-central1")
    names = {r["metadata"]["name"] for r in gcloud.json("run revisions list --service=hello")}
    expect("revisions", names, {first, second, "hello-third"})
    gcloud.run(f"run revisions describe {first}")
    gcloud.run("run revisions delete hello-third", fails="cannot be deleted")
    gcloud.run(f"run revisions delete {first}")
    gcloud.run("run regions list")
    gcloud.run("run services describe hello")

    # Replace: as exported, changed, as a dry run, and with every field wrong.
    exported = gcloud.run("run services describe hello --format=export")
    file = folder / "service.yaml"
    file.write_text(exported.replace("containerConcurrency: 20", "containerConcurrency: 30")
                    .replace("name: hello-third", "name: hello-fourth"))
    gcloud.run(f"run services replace {file} --dry-run")
    gcloud.run(f"run services replace {file}")
    hello = gcloud.json("run services describe hello")
    expect("replaced", hello["spec"]["template"]["spec"]["containerConcurrency"], 30)
    file.write_text(exported.replace("containerConcurrency: 20", "containerConcurrency: 2000"))
    gcloud.run(f"run services replace {file}", fails="containerConcurrency")

    who = "--member=user:ann@example.com --role=roles/run.invoker"
    gcloud.run(f"run services add-iam-policy-binding hello {who}")
    gcloud.run(f"run services remove-iam-policy-binding hello {who}")
    policy = gcloud.json("run services get-iam-policy hello")
    expect("members", policy["bindings"][0]["members"], ["allUsers"])

    gcloud.run("run services update hello --session-affinity")
    notes = gcloud.json("run services describe hello")["spec"]["template"]["metadata"]["annotations"]
    expect("session affinity", notes.get("run.googleapis.com/sessionAffinity"), "true")
    gcloud.run("run services update hello --no-session-affinity")
    gcloud.run("run services update hello --binary-authorization=default", fails="Binary Authorization")
    gcloud.run("run services update hello --cpu=3", fails="cpu")
    gcloud.run("run services update hello --ingress=internal", fails="ingress")
    gcloud.run("run services update missing --cpu=1", fails="missing")
    gcloud.run("run services logs read hello --limit=5")
    if bad_image:
        gcloud.run(f"run deploy broken --image={bad_image} --no-allow-unauthenticated",
                   fails="(?i)ready|start|port|image|revision")
    gcloud.run("run services delete hello")
    gcloud.run("run services describe hello", fails="Cannot find service")
    gcloud.run("run services delete hello", fails="could not be found|Cannot find|not found")


def free_port():
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def faces(program, port):
    """Starts the API alone; gcloud reaches it as a plain HTTP proxy."""
    server = subprocess.Popen([program, f"127.0.0.1:{port}"], stdout=subprocess.PIPE, text=True)
    token = server.stdout.readline().strip()
    names = {"RUN": "run", "SERVICEUSAGE": "serviceusage", "LOGGING": "logging",
             "CLOUDRESOURCEMANAGER": "cloudresourcemanager"}
    environment = {
        f"CLOUDSDK_API_ENDPOINT_OVERRIDES_{key}": f"http://{name}.googleapis.com/"
        for key, name in names.items()
    }
    environment.update(
        CLOUDSDK_PROXY_TYPE="http", CLOUDSDK_PROXY_ADDRESS="127.0.0.1",
        CLOUDSDK_PROXY_PORT=str(port), CLOUDSDK_AUTH_ACCESS_TOKEN=token,
        CLOUDSDK_CORE_PROJECT="demo", CLOUDSDK_RUN_REGION="us-central1",
    )
    return server, environment


def platform(program, port, folder):
    """Starts the whole platform and asks it for gcloud's environment."""
    data = ["--data", str(folder / "data")]
    server = subprocess.Popen([program, "up", *data, "--listen", f"127.0.0.1:{port}"])
    deadline = time.monotonic() + 30
    while True:
        asked = subprocess.run([program, "gcloud", "env", *data], capture_output=True, text=True)
        with socket.socket() as probe:
            listening = probe.connect_ex(("127.0.0.1", port)) == 0
        if asked.returncode == 0 and listening:
            break
        if time.monotonic() > deadline or server.poll() is not None:
            raise Failed(f"lauf up is not ready: {asked.stderr}")
        time.sleep(0.1)
    pairs = re.findall(r"(CLOUDSDK_\w+)=['\"]?([^'\"\s;]*)", asked.stdout)
    pack(program, data, "hello", GOOD, folder)
    pack(program, data, "bad", BAD, folder)
    pack(program, data, "work", jobs.WORK, folder)
    return server, dict(pairs)


# Two programs as small as can be: one that serves, and one that never listens.
GOOD = r"""
#include <netinet/in.h>
#include <stdlib.h>
#include <unistd.h>
int main(void) {
  int one = 1, s = socket(AF_INET, SOCK_STREAM, 0);
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(atoi(getenv("PORT")))};
  setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (bind(s, (void *)&a, sizeof a) || listen(s, 64)) return 1;
  write(1, "serving\n", 8);
  for (;;) {
    char in[4096];
    int c = accept(s, 0, 0);
    if (read(c, in, sizeof in) > 0)
      write(c, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n", 62);
    close(c);
  }
}
"""
BAD = r"""
#include <unistd.h>
int main(void) { write(2, "cannot find the database\n", 25); return 3; }
"""


def pack(program, data, name, source, folder):
    """Compiles a program and makes an image of it and nothing else."""
    root = folder / f"{name}-root"
    root.mkdir()
    subprocess.run(["gcc", "-static", "-Os", "-w", "-x", "c", "-", "-o", str(root / name)],
                   input=source, text=True, check=True)
    subprocess.run([program, "image", "pack", str(root), "-t", name, "--entrypoint", f"/{name}",
                    "--user", "1000:1000", *data], check=True, capture_output=True)


def main():
    """Runs the story against what the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faces", help="the API alone: path of the serve example")
    parser.add_argument("--image", default="hello", help="an image that serves")
    parser.add_argument("--bad-image", default="bad", help="an image that never listens")
    options = parser.parse_args()
    if shutil.which("gcloud") is None:
        print("SKIP gcloud: there is no gcloud on this machine (the Google Cloud SDK)")
        print("0 passed, 0 failed, 1 skipped")
        return 77
    with tempfile.TemporaryDirectory(prefix="lauf-gcloud-") as temporary:
        folder, port = pathlib.Path(temporary), free_port()
        if options.faces:
            server, environment = faces(options.faces, port)
        else:
            server, environment = platform(os.environ["LAUF_BIN"], port, folder)
        try:
            gcloud = Gcloud(environment, folder)
            story(gcloud, options.image, folder, options.bad_image)
            if not options.faces:
                jobs.story(gcloud, "work", folder)
                jobs.pools(gcloud, "work", folder)
        except Failed as failure:
            print(f"FAIL gcloud: {failure}")
            print(f"{Gcloud.commands - 1} passed, 1 failed, 0 skipped")
            return 1
        finally:
            if options.faces:
                server.terminate()
            else:
                subprocess.run([os.environ["LAUF_BIN"], "down", "--purge", "--data",
                                str(folder / "data")], check=False)
            server.wait(60)
    print(f"{Gcloud.commands} passed, 0 failed, 0 skipped")
    return 0


if __name__ == "__main__":
    sys.exit(main())
