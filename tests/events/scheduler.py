#!/usr/bin/env python3
"""Cloud Scheduler as its users have it: the unmodified google-cloud-scheduler client and gcloud, against `lauf up`.

    LAUF_BIN=target/debug/lauf tests/events/scheduler.py [STORY...]
"""

import base64
import json
import sys
import time

import requests
from google.api_core import exceptions
from google.cloud import scheduler_v1
from google.protobuf import duration_pb2, field_mask_pb2

from house import PROJECT, WAIT, Gcloud, Sink, channel, expect, fails, tell_all, wait_for

REGION = f"{PROJECT}/locations/us-central1"
# Of a year that is far away: what runs is run by hand.
NEVER = "0 0 29 2 *"


class Scheduler:
    """A client, a server that is called, and names that nothing has."""

    def __init__(self, server):
        self.server = server
        transport = scheduler_v1.CloudSchedulerClient.get_transport_class("grpc")
        self.client = scheduler_v1.CloudSchedulerClient(transport=transport(channel=channel(server)))
        self.sink = Sink()
        self.count = 0

    def job(self, path, schedule=NEVER, http=None, **fields):
        """Makes a job that calls a path of the server."""
        self.count += 1
        name = f"{REGION}/jobs/job-{self.count}-{int(time.time())}"
        target = {"uri": f"{self.sink.url}{path}", **(http or {})}
        return self.client.create_job(
            parent=REGION, job={"name": name, "schedule": schedule, "http_target": target, **fields}
        )


def jobs_live_and_die(house):
    client = house.client
    job = house.job("/x", description="says hello", time_zone="Europe/Berlin")
    expect("state", job.state, scheduler_v1.Job.State.ENABLED)
    expect("method", job.http_target.http_method, scheduler_v1.HttpMethod.POST)
    expect("deadline", job.attempt_deadline.seconds, 180)
    expect("next", (job.schedule_time.month, job.schedule_time.day, job.schedule_time.hour), (2, 28, 23))
    fails(exceptions.AlreadyExists, "already exists", lambda: client.create_job(parent=REGION, job=job))
    changed = client.update_job(
        job={"name": job.name, "schedule": "*/5 * * * *"},
        update_mask=field_mask_pb2.FieldMask(paths=["schedule"]),
    )
    expect("changed", (changed.schedule, changed.time_zone, changed.description),
           ("*/5 * * * *", "Europe/Berlin", "says hello"))
    expect("uri", changed.http_target.uri, f"{house.sink.url}/x")
    expect("minute", changed.schedule_time.minute % 5, 0)
    fails(exceptions.InvalidArgument, "update_mask", lambda: client.update_job(
        job={"name": job.name}, update_mask=field_mask_pb2.FieldMask(paths=["state"])))
    expect("paused", client.pause_job(name=job.name).state, scheduler_v1.Job.State.PAUSED)
    expect("no next", "schedule_time" in client.get_job(name=job.name), False)
    expect("resumed", client.resume_job(name=job.name).state, scheduler_v1.Job.State.ENABLED)
    expect("listed", job.name in [j.name for j in client.list_jobs(parent=REGION)], True)
    client.delete_job(name=job.name)
    fails(exceptions.NotFound, "not found", lambda: client.get_job(name=job.name))


def each_wrong_field_is_named(house):
    for fields, part in [
        ({"schedule": "* * *"}, "schedule"),
        ({"schedule": "0 0 31 2 *"}, "never comes"),
        ({"time_zone": "Mars/Olympus"}, "Mars/Olympus"),
        ({"attempt_deadline": duration_pb2.Duration(seconds=1)}, "attempt_deadline"),
        ({"retry_config": {"retry_count": 6}}, "retry_config.retry_count"),
        ({"http": {"uri": "ftp://x"}}, "http_target.uri"),
        ({"http": {"oauth_token": {"service_account_email": "a@b.c"}}}, "googleapis.com"),
        ({"http": {"oidc_token": {"service_account_email": "nobody"}}}, "service_account_email"),
        ({"http": {"http_method": "GET", "body": b"x"}}, "http_target.body"),
    ]:
        fails(exceptions.InvalidArgument, part, lambda fields=fields: house.job("/x", **fields))
    fails(exceptions.NotFound, "Region 'mars' is not served",
          lambda: house.client.list_jobs(parent=f"{PROJECT}/locations/mars"))


def a_job_runs_when_it_is_told_to(house):
    job = house.job("/now", http={"headers": {"X-Colour": "red"}, "body": b"hello", "http_method": "PUT"})
    house.client.run_job(name=job.name)
    got = house.sink.wait("/now")[0]
    expect("request", (got.method, got.body, got.headers["X-Colour"]), ("PUT", b"hello", "red"))
    expect("name", got.headers["X-CloudScheduler-JobName"], job.name.split("/")[-1])
    expect("agent", got.headers["User-Agent"], "Google-Cloud-Scheduler")
    wait_for("the attempt", lambda: "last_attempt_time" in house.client.get_job(name=job.name))
    expect("status", house.client.get_job(name=job.name).status.code, 0)


def it_comes_at_its_time(house):
    job = house.job("/minutely", "* * * * *")
    due = job.schedule_time.timestamp()
    got = house.sink.wait("/minutely", wait=90)[0]
    late = got.time - due
    expect(f"late by {late:.3f} s", 0 <= late < 0.5, True)
    wait_for("the next time", lambda: house.client.get_job(name=job.name).schedule_time.timestamp() == due + 60)
    house.client.delete_job(name=job.name)


def what_fails_is_tried_again(house):
    house.sink.answers.extend([500, 503])
    job = house.job("/fails", retry_config={
        "retry_count": 3,
        "min_backoff_duration": duration_pb2.Duration(nanos=200_000_000),
        "max_backoff_duration": duration_pb2.Duration(seconds=1),
    })
    house.client.run_job(name=job.name)
    times = [got.time for got in house.sink.wait("/fails", 3)]
    expect("back-off", times[1] - times[0] >= 0.2 and times[2] - times[1] >= 0.4, True)
    time.sleep(1.5)
    expect("no more", len(house.sink.of("/fails")), 3)
    expect("status", house.client.get_job(name=job.name).status.code, 0)
    house.sink.answers.extend([404, 404])
    job = house.job("/lost", retry_config={
        "retry_count": 1, "min_backoff_duration": duration_pb2.Duration(nanos=100_000_000)})
    house.client.run_job(name=job.name)
    house.sink.wait("/lost", 2)
    wait_for("the status", lambda: house.client.get_job(name=job.name).status.code == 5)


def a_topic_gets_its_message(house):
    server = house.server
    topic, subscription = f"{PROJECT}/topics/ticks", f"{PROJECT}/subscriptions/ticks"
    server.rest("PUT", topic, {})
    server.rest("PUT", subscription, {"topic": topic})
    name = f"{REGION}/jobs/ticks"
    target = {"topic_name": topic, "data": b"tick", "attributes": {"from": "scheduler"}}
    house.client.create_job(parent=REGION, job={"name": name, "schedule": NEVER, "pubsub_target": target})
    house.client.run_job(name=name)
    message = server.rest("POST", f"{subscription}:pull", {"maxMessages": 1})["receivedMessages"][0]["message"]
    expect("data", base64.b64decode(message["data"]), b"tick")
    expect("attributes", message["attributes"], {"from": "scheduler"})
    target = {"topic_name": f"{PROJECT}/topics/none", "data": b"x"}
    fails(exceptions.NotFound, "not found", lambda: house.client.create_job(
        parent=REGION, job={"name": f"{name}-2", "schedule": NEVER, "pubsub_target": target}))


def an_identity_token_comes_along(house):
    job = house.job("/who", http={"oidc_token": {"service_account_email": "cron@demo.iam.gserviceaccount.com"}})
    house.client.run_job(name=job.name)
    token = house.sink.wait("/who")[0].headers["Authorization"].removeprefix("Bearer ")
    padded = token.split(".")[1] + "=="
    claims = json.loads(base64.urlsafe_b64decode(padded))
    expect("claims", (claims["email"], claims["aud"]), ("cron@demo.iam.gserviceaccount.com", f"{house.sink.url}/who"))
    keys = requests.get(f"http://127.0.0.1:{house.server.port}/oauth2/v3/certs", timeout=WAIT)
    expect("keys", len(keys.json()["keys"]) >= 1, True)


def calls_of_googles_apis_come_home(house):
    """With an access token, which the API takes."""
    uri = f"https://us-central1-run.googleapis.com/apis/serving.knative.dev/v1/namespaces/demo/services"
    name = f"{REGION}/jobs/home"
    target = {"uri": uri, "http_method": "GET",
              "oauth_token": {"service_account_email": "cron@demo.iam.gserviceaccount.com"}}
    house.client.create_job(parent=REGION, job={"name": name, "schedule": NEVER, "http_target": target})
    house.client.run_job(name=name)
    wait_for("the attempt", lambda: "last_attempt_time" in house.client.get_job(name=name))
    status = house.client.get_job(name=name).status
    expect(status.message, status.code, 0)
    del target["oauth_token"]
    house.client.create_job(parent=REGION, job={"name": f"{name}-2", "schedule": NEVER, "http_target": target})
    house.client.run_job(name=f"{name}-2")
    wait_for("a refusal", lambda: house.client.get_job(name=f"{name}-2").status.code == 16)


def a_killed_server_forgets_no_run(house):
    """A time that comes while the server is away is made up for, once; so is a run that was told to it."""
    job = house.job("/minute", "* * * * *")
    due = job.schedule_time.timestamp()
    told = house.job("/told")
    house.sink.delay = 2
    house.client.run_job(name=told.name)
    house.sink.wait("/told")
    # It was sent, and not answered yet: whether it was done is not known, so it is done again.
    house.server.kill()
    house.sink.delay = 0
    time.sleep(max(0, due - time.time()) + 2)
    expect("while away", len(house.sink.of("/minute")), 0)
    house.server.start()
    house.sink.wait("/minute")
    house.sink.wait("/told", 2)
    time.sleep(1)
    expect("once", len([got for got in house.sink.of("/minute") if got.time < due + 60]), 1)
    expect("twice", len(house.sink.of("/told")), 2)
    house.client.delete_job(name=job.name)


def rest_alone(house):
    """The JSON form, as gcloud sends it."""
    server = house.server
    path = "projects/demo/locations/us-central1/jobs"
    uri = f"{house.sink.url}/rest"
    made = server.rest("POST", path, {
        "name": f"{path}/rest", "schedule": "0 9 * * 1-5", "timeZone": "America/New_York",
        "httpTarget": {"uri": uri, "body": base64.b64encode(b"hi").decode()},
    })
    expect("state", (made["state"], made["httpTarget"]["httpMethod"]), ("ENABLED", "POST"))
    expect("retries", made["retryConfig"]["maxDoublings"], 5)
    server.rest("POST", f"{path}/rest:run", {})
    expect("body", house.sink.wait("/rest")[0].body, b"hi")
    error = server.rest("POST", path, {"name": f"{path}/x", "schedule": "61 * * * *", "httpTarget": {"uri": uri}}, 400)
    expect("field", error["error"]["details"][0]["fieldViolations"][0]["field"], "schedule")
    expect("gone", server.rest("DELETE", f"{path}/rest"), {})
    server.rest("GET", f"{path}/rest", code=404)


def gcloud(house):
    """The commands of `gcloud scheduler`."""
    client = Gcloud(house.server)
    run, read = client.run, client.read
    where = "--location=us-central1"
    run(["scheduler", "jobs", "create", "http", "web", where, "--schedule=0 9 * * *", f"--uri={house.sink.url}/gcloud",
         "--message-body=hello", "--headers=X-A=b", "--time-zone=Europe/Berlin", "--max-retry-attempts=2"])
    web = read(f"scheduler jobs describe web {where}")
    expect("job", (web["schedule"], web["timeZone"], web["retryConfig"]["retryCount"]), ("0 9 * * *", "Europe/Berlin", 2))
    run(["scheduler", "jobs", "create", "http", "web", where, "--schedule=0 9 * * *", f"--uri={house.sink.url}/"],
        wrong="already exists")
    run(["scheduler", "jobs", "create", "http", "bad", where, "--schedule=every day", f"--uri={house.sink.url}/"],
        wrong="schedule")
    run(f"scheduler jobs run web {where}")
    got = house.sink.wait("/gcloud")[0]
    expect("request", (got.method, got.body, got.headers["X-A"]), ("POST", b"hello", "b"))
    run(f"scheduler jobs pause web {where}")
    expect("state", read(f"scheduler jobs describe web {where}")["state"], "PAUSED")
    run(f"scheduler jobs resume web {where}")
    run(["scheduler", "jobs", "update", "http", "web", where, "--schedule=0 10 * * *", "--update-headers=X-C=d"])
    web = read(f"scheduler jobs describe web {where}")
    expect("updated", (web["schedule"], web["httpTarget"]["headers"]["X-C"]), ("0 10 * * *", "d"))
    run("pubsub topics create cron")
    run(["scheduler", "jobs", "create", "pubsub", "note", where, "--schedule=0 9 * * *", "--topic=cron",
         "--message-body=hello"])
    expect("jobs", {"web", "note"} <= {j["name"].split("/")[-1] for j in read(f"scheduler jobs list {where}")}, True)
    run(f"scheduler jobs delete web {where}")
    run(f"scheduler jobs describe web {where}", wrong="not found")


def stories(server):
    house = Scheduler(server)
    for story in [
        jobs_live_and_die,
        each_wrong_field_is_named,
        a_job_runs_when_it_is_told_to,
        it_comes_at_its_time,
        what_fails_is_tried_again,
        a_topic_gets_its_message,
        an_identity_token_comes_along,
        calls_of_googles_apis_come_home,
        rest_alone,
        a_killed_server_forgets_no_run,
        gcloud,
    ]:
        yield story.__name__, story, house


if __name__ == "__main__":
    sys.exit(tell_all(stories))
