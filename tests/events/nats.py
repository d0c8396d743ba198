#!/usr/bin/env python3
"""The stories of Pub/Sub and Tasks once more, with the messages on NATS JetStream; and that messages are not lost by going from one place to
another.

    LAUF_BIN=target/debug/lauf LAUF_NATS_SERVER=nats-server tests/events/nats.py
"""

import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time

from google.cloud import pubsub_v1

from house import PROJECT, WAIT, Failed, Server, free_port

HERE = pathlib.Path(__file__).parent


def start(folder):
    """A server that syncs each message to the disk, and its address; nothing where there is no program for it."""
    program = os.environ.get("LAUF_NATS_SERVER") or shutil.which("nats-server")
    if not program:
        return None, None
    port = free_port()
    config = folder / "nats.conf"
    config.write_text(
        f'listen: "127.0.0.1:{port}"\n'
        f'jetstream {{\n  store_dir: "{folder / "store"}"\n  sync_interval: always\n}}\n'
    )
    process = subprocess.Popen([program, "--config", str(config)], stderr=(folder / "nats.log").open("wb"))
    deadline = time.monotonic() + WAIT
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return process, f"nats://127.0.0.1:{port}"
        except OSError:
            time.sleep(0.05)
    process.kill()
    raise Failed(f"nats-server does not listen:\n{(folder / 'nats.log').read_text()}")


def elsewhere(folder, url):
    """A data folder whose messages are in one place is not started with another, until nobody has messages any more."""
    folder.mkdir()
    server = Server(folder)
    os.environ.pop("LAUF_MESSAGE_LOG", None)
    server.start()
    os.environ["PUBSUB_EMULATOR_HOST"] = f"127.0.0.1:{server.emulator}"
    topics = pubsub_v1.PublisherClient()
    topic = f"{PROJECT}/topics/orders"
    topics.create_topic(name=topic)
    server.kill()

    os.environ["LAUF_MESSAGE_LOG"] = url
    refused = refusal(server)
    for part in ("in files of the data folder", "without --message-log", "topic 'demo/orders'"):
        if part not in refused:
            raise Failed(f"the refusal does not say {part!r}: {refused}")

    del os.environ["LAUF_MESSAGE_LOG"]
    server.start()
    topics.delete_topic(topic=topic)
    server.kill()
    os.environ["LAUF_MESSAGE_LOG"] = url
    server.start()
    topics.create_topic(name=topic)
    topics.publish(topic, b"kept on NATS").result(WAIT)
    server.kill()
    del os.environ["LAUF_MESSAGE_LOG"]
    refused = refusal(server)
    if "in NATS JetStream" not in refused:
        raise Failed(f"the refusal does not say where the messages are: {refused}")
    os.environ["LAUF_MESSAGE_LOG"] = url
    server.start()
    topics.delete_topic(topic=topic)
    server.down()


def refusal(server):
    """What `lauf up` says when it does not start."""
    try:
        server.start()
    except Failed as failure:
        return str(failure)
    server.down()
    raise Failed("it starts")


def main():
    folder = pathlib.Path(tempfile.mkdtemp(prefix="lauf-nats-"))
    sums = [0, 0, 0]
    nats = None
    try:
        nats, url = start(folder)
        if not url:
            print("SKIP nats: there is no nats-server; cargo xtask test fetches one, or set LAUF_NATS_SERVER")
            print("0 passed, 0 failed, 1 skipped")
            return
        try:
            elsewhere(folder / "lauf", url)
            sums[0] += 1
            print("PASS messages stay where they are")
        except Failed as failure:
            sums[1] += 1
            print(f"FAIL messages stay where they are: {failure}")
        for stories in ("pubsub", "tasks"):
            said = subprocess.run(
                [sys.executable, HERE / f"{stories}.py", *sys.argv[1:]], env={**os.environ, "LAUF_MESSAGE_LOG": url},
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
            ).stdout.strip()
            lines, _, last = said.rpartition("\n")
            told = re.fullmatch(r"(\d+) passed, (\d+) failed, (\d+) skipped", last)
            if not told:
                print(said)
                print(f"FAIL {stories} on NATS: it told no sum")
                sums[1] += 1
                continue
            if int(told[2]):
                print(lines)
            sums = [had + int(more) for had, more in zip(sums, told.groups())]
    finally:
        if nats:
            nats.terminate()
            nats.wait(WAIT)
        shutil.rmtree(folder, ignore_errors=True)
    print("{} passed, {} failed, {} skipped".format(*sums))
    sys.exit(1 if sums[1] else 0)


if __name__ == "__main__":
    main()
