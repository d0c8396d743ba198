#!/usr/bin/env python3
"""Cloud Tasks as its users have it: the unmodified google-cloud-tasks client and gcloud, against `lauf up`.

    LAUF_BIN=target/debug/lauf tests/events/tasks.py [STORY...]
"""

import base64
import datetime
import sys
import threading
import time

from google.api_core import exceptions
from google.cloud import tasks_v2
from google.protobuf import duration_pb2, field_mask_pb2, timestamp_pb2

from house import PROJECT, WAIT, Gcloud, Sink, channel, expect, fails, tell_all, wait_for

REGION = f"{PROJECT}/locations/us-central1"


class Tasks:
    """A client, a server that is called, and names that nothing has."""

    def __init__(self, server):
        self.server = server
        transport = tasks_v2.CloudTasksClient.get_transport_class("grpc")
        self.client = tasks_v2.CloudTasksClient(transport=transport(channel=channel(server)))
        self.sink = Sink()
        self.count = 0

    def queue(self, **fields):
        """Makes a queue."""
        self.count += 1
        name = f"{REGION}/queues/queue-{self.count}-{int(time.time())}"
        return self.client.create_queue(parent=REGION, queue={"name": name, **fields}).name

    def add(self, queue, path, http=None, **fields):
        """Adds a task that calls a path of the server."""
        request = {"url": f"{self.sink.url}{path}", **(http or {})}
        return self.client.create_task(parent=queue, task={"http_request": request, **fields})

    def empty(self, queue):
        """Waits until a queue has no task."""
        wait_for("an empty queue", lambda: not list(self.client.list_tasks(parent=queue)))


def at(seconds):
    """A time from now."""
    return timestamp_pb2.Timestamp(seconds=int(time.time() + seconds))


def queues_live_and_die(house):
    client = house.client
    name = house.queue(rate_limits={"max_dispatches_per_second": 5}, retry_config={"max_attempts": -1})
    queue = client.get_queue(name=name)
    expect("state", queue.state, tasks_v2.Queue.State.RUNNING)
    expect("rate", (queue.rate_limits.max_dispatches_per_second, queue.rate_limits.max_concurrent_dispatches), (5, 1000))
    expect("retries", (queue.retry_config.max_attempts, queue.retry_config.max_doublings), (-1, 16))
    fails(exceptions.AlreadyExists, "already exists", lambda: client.create_queue(parent=REGION, queue={"name": name}))
    changed = client.update_queue(
        queue={"name": name, "rate_limits": {"max_concurrent_dispatches": 3}},
        update_mask=field_mask_pb2.FieldMask(paths=["rate_limits.max_concurrent_dispatches"]),
    )
    expect("changed", (changed.rate_limits.max_dispatches_per_second, changed.rate_limits.max_concurrent_dispatches), (5, 3))
    expect("listed", name in [q.name for q in client.list_queues(parent=REGION)], True)
    policy = client.get_iam_policy(request={"resource": name})
    policy.bindings.add(role="roles/cloudtasks.enqueuer", members=["user:a@example.com"])
    client.set_iam_policy(request={"resource": name, "policy": policy})
    policy = client.get_iam_policy(request={"resource": name})
    expect("policy", [b.role for b in policy.bindings], ["roles/cloudtasks.enqueuer"])
    client.delete_queue(name=name)
    fails(exceptions.NotFound, "does not exist", lambda: client.get_queue(name=name))
    fails(exceptions.NotFound, "does not exist", lambda: house.add(name, "/x"))


def a_task_is_sent_once(house):
    queue = house.queue()
    task = house.add(queue, "/once", {"headers": {"X-Colour": "red"}, "body": b"hello"})
    got = house.sink.wait("/once")[0]
    expect("request", (got.method, got.body, got.headers["X-Colour"]), ("POST", b"hello", "red"))
    expect("name", got.headers["X-CloudTasks-TaskName"], task.name.split("/")[-1])
    expect("queue", got.headers["X-CloudTasks-QueueName"], queue.split("/")[-1])
    expect("counts", (got.headers["X-CloudTasks-TaskRetryCount"], got.headers["X-CloudTasks-TaskExecutionCount"]), ("0", "0"))
    house.empty(queue)
    time.sleep(0.5)
    expect("once", len(house.sink.of("/once")), 1)
    fails(exceptions.NotFound, task.name.split("/")[-1], lambda: house.client.get_task(name=task.name))


def a_name_is_used_once(house):
    queue = house.queue()
    name = f"{queue}/tasks/order-1"
    house.add(queue, "/named", name=name)
    house.sink.wait("/named")
    house.empty(queue)
    fails(exceptions.AlreadyExists, "order-1", lambda: house.add(queue, "/named", name=name))
    fails(exceptions.InvalidArgument, "not below the parent",
          lambda: house.add(queue, "/named", name=f"{REGION}/queues/other/tasks/x"))


def each_wrong_field_is_named(house):
    queue = house.queue()
    for http, fields, part in [
        ({"url": "nowhere"}, {}, "http_request.uri"),
        ({"body": b"x" * (1 << 20 | 1)}, {}, "1048577 bytes"),
        ({}, {"schedule_time": at(31 * 86400)}, "schedule_time"),
        ({}, {"dispatch_deadline": duration_pb2.Duration(seconds=14)}, "dispatch_deadline"),
        ({"oauth_token": {"service_account_email": "a@b.c"}}, {}, "googleapis.com"),
    ]:
        fails(exceptions.InvalidArgument, part, lambda http=http, fields=fields: house.add(queue, "/x", http, **fields))
    fails(exceptions.InvalidArgument, "max_dispatches_per_second",
          lambda: house.queue(rate_limits={"max_dispatches_per_second": 501}))
    fails(exceptions.InvalidArgument, "stackdriver_logging_config",
          lambda: house.queue(stackdriver_logging_config={"sampling_ratio": 0.5}))


def what_fails_comes_again(house):
    backoff = duration_pb2.Duration(nanos=200_000_000)
    queue = house.queue(retry_config={"min_backoff": backoff, "max_attempts": 4})
    house.sink.answers.extend([500, 429])
    house.add(queue, "/again")
    got = house.sink.wait("/again", 3)
    expect("back-off", got[1].time - got[0].time >= 0.2 and got[2].time - got[1].time >= 0.4, True)
    expect("retries", [g.headers["X-CloudTasks-TaskRetryCount"] for g in got], ["0", "1", "2"])
    house.empty(queue)
    house.sink.answers.extend([500] * 4)
    house.add(queue, "/enough")
    house.sink.wait("/enough", 4)
    house.empty(queue)
    expect("no more", len(house.sink.of("/enough")), 4)


def tasks_wait_for_their_time(house):
    queue = house.queue()
    task = house.add(queue, "/later", schedule_time=at(3))
    got = house.sink.wait("/later")[0]
    expect("not early", got.time >= task.schedule_time.timestamp() - 0.01, True)
    expect("not late", got.time < task.schedule_time.timestamp() + 1, True)
    task = house.add(queue, "/forced", {"body": b"secret"}, schedule_time=at(3600))
    expect("basic", house.client.get_task(name=task.name).http_request.body, b"")
    full = house.client.get_task(request={"name": task.name, "response_view": tasks_v2.Task.View.FULL})
    expect("full", full.http_request.body, b"secret")
    house.client.run_task(name=task.name)
    house.sink.wait("/forced")
    task = house.add(queue, "/never", schedule_time=at(3600))
    house.client.delete_task(name=task.name)
    fails(exceptions.NotFound, task.name.split("/")[-1], lambda: house.client.run_task(name=task.name))


def a_queue_keeps_its_limits(house):
    queue = house.queue(rate_limits={"max_concurrent_dispatches": 2})
    house.sink.delay = 0.3
    for _ in range(8):
        house.add(queue, "/two")
    got = house.sink.wait("/two", 8)
    house.sink.delay = 0
    times = sorted(g.time for g in got)
    for n in range(len(times) - 2):
        expect("two at a time", times[n + 2] - times[n] > 0.25, True)
    queue = house.queue(rate_limits={"max_dispatches_per_second": 10})
    for _ in range(30):
        house.add(queue, "/slow")
    times = sorted(g.time for g in house.sink.wait("/slow", 30))
    # Ten at once, and then ten a second.
    expect(f"{times[-1] - times[0]:.2f} s", 1.8 < times[-1] - times[0] < 4, True)


def queues_pause_and_purge(house):
    queue = house.queue()
    expect("paused", house.client.pause_queue(name=queue).state, tasks_v2.Queue.State.PAUSED)
    for n in range(5):
        house.add(queue, "/paused", name=f"{queue}/tasks/t{n}")
    time.sleep(0.5)
    expect("held", len(house.sink.of("/paused")), 0)
    expect("tasks", len(list(house.client.list_tasks(parent=queue))), 5)
    purged = house.client.purge_queue(name=queue)
    expect("purge time", "purge_time" in purged, True)
    house.empty(queue)
    house.add(queue, "/paused")
    house.client.resume_queue(name=queue)
    house.sink.wait("/paused")
    time.sleep(0.3)
    expect("sent", len(house.sink.of("/paused")), 1)


def a_killed_server_loses_no_task(house):
    """Every task that was added is sent, while the server is killed again and again."""
    queue = house.queue(retry_config={"min_backoff": duration_pb2.Duration(nanos=100_000_000)})
    added, stop = set(), threading.Event()

    def add():
        number = 0
        while not stop.is_set():
            try:
                house.add(queue, f"/kill/{number}")
                added.add(number)
            except (exceptions.ServiceUnavailable, exceptions.RetryError, exceptions.Unknown, exceptions.InternalServerError):
                time.sleep(0.05)
            number += 1

    thread = threading.Thread(target=add)
    thread.start()
    for _ in range(3):
        time.sleep(1)
        house.server.kill()
        house.server.start()
    time.sleep(1)
    stop.set()
    thread.join(WAIT)
    expect("some", len(added) > 100, True)

    def missing():
        return added - {int(got.path.split("/")[-1]) for got in house.sink.got if got.path.startswith("/kill/")}

    wait_for(f"all of {len(added)}", lambda: not missing())
    house.empty(queue)


def rest_alone(house):
    """The JSON form, as gcloud sends it."""
    server = house.server
    path = "projects/demo/locations/us-central1/queues"
    made = server.rest("POST", path, {"name": f"{path}/rest", "rateLimits": {"maxDispatchesPerSecond": 2.5}}, version="v2")
    expect("queue", (made["state"], made["rateLimits"]["maxDispatchesPerSecond"]), ("RUNNING", 2.5))
    body = base64.b64encode(b"hi").decode()
    task = {"task": {"httpRequest": {"url": f"{house.sink.url}/rest", "body": body}}}
    made = server.rest("POST", f"{path}/rest/tasks", task, version="v2")
    expect("name", made["name"].startswith(f"{path}/rest/tasks/"), True)
    expect("body", house.sink.wait("/rest")[0].body, b"hi")
    error = server.rest("POST", f"{path}/rest/tasks", {"task": {"httpRequest": {"url": "x"}}}, 400, version="v2")
    expect("field", error["error"]["details"][0]["fieldViolations"][0]["field"], "task.http_request.uri")
    server.rest("DELETE", f"{path}/rest", version="v2")
    server.rest("GET", f"{path}/rest", code=404, version="v2")


def gcloud(house):
    """The commands of `gcloud tasks`."""
    client = Gcloud(house.server)
    run, read = client.run, client.read
    where = "--location=us-central1"
    run(f"tasks queues create thumbs {where} --max-attempts=5 --max-concurrent-dispatches=7")
    run(f"tasks queues create thumbs {where}", wrong="already exists")
    queue = read(f"tasks queues describe thumbs {where}")
    expect("queue", (queue["retryConfig"]["maxAttempts"], queue["rateLimits"]["maxConcurrentDispatches"]), (5, 7))
    run(f"tasks queues update thumbs {where} --max-dispatches-per-second=20")
    expect("rate", read(f"tasks queues describe thumbs {where}")["rateLimits"]["maxDispatchesPerSecond"], 20)
    run(f"tasks create-http-task one --queue=thumbs {where} --url={house.sink.url}/gcloud --body-content=hello")
    expect("body", house.sink.wait("/gcloud")[0].body, b"hello")
    later = (datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    run(f"tasks create-http-task two --queue=thumbs {where} --url={house.sink.url}/two --schedule-time={later}")
    expect("tasks", [t["name"].split("/")[-1] for t in read(f"tasks list --queue=thumbs {where}")], ["two"])
    run(f"tasks describe two --queue=thumbs {where}")
    run(f"tasks run two --queue=thumbs {where}")
    house.sink.wait("/two")
    run(f"tasks queues pause thumbs {where}")
    run(f"tasks queues resume thumbs {where}")
    run(f"tasks queues purge thumbs {where}")
    run(f"tasks queues add-iam-policy-binding thumbs {where} --member=user:a@example.com --role=roles/cloudtasks.enqueuer")
    expect("policy", len(read(f"tasks queues get-iam-policy thumbs {where}")["bindings"]), 1)
    expect("queues", "thumbs" in [q["name"].split("/")[-1] for q in read(f"tasks queues list {where}")], True)
    run(f"tasks queues delete thumbs {where}")
    run(f"tasks queues describe thumbs {where}", wrong="does not exist")


def stories(server):
    house = Tasks(server)
    for story in [
        queues_live_and_die,
        a_task_is_sent_once,
        a_name_is_used_once,
        each_wrong_field_is_named,
        what_fails_comes_again,
        tasks_wait_for_their_time,
        a_queue_keeps_its_limits,
        queues_pause_and_purge,
        rest_alone,
        a_killed_server_loses_no_task,
        gcloud,
    ]:
        yield story.__name__, story, house


if __name__ == "__main__":
    sys.exit(tell_all(stories))
