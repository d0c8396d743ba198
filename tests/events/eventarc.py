#!/usr/bin/env python3
"""Eventarc as its users have it: the unmodified google-cloud-eventarc client and gcloud, against `lauf up`.

    LAUF_BIN=target/debug/lauf tests/events/eventarc.py [STORY...]
"""

import base64
import json
import shutil
import subprocess
import sys

import requests
from google.api_core import exceptions
from google.cloud import eventarc_publishing_v1, eventarc_v1
from google.protobuf import any_pb2

from house import PROJECT, WAIT, Gcloud, Skipped, channel as rpc_channel, expect, fails, tell_all, wait_for

REGION = f"{PROJECT}/locations/us-central1"
AUDIT = "google.cloud.audit.log.v1.written"
PUBLISHED = "google.cloud.pubsub.topic.v1.messagePublished"
ACCOUNT = "eventarc@demo.iam.gserviceaccount.com"

# A service that says what it is sent, each request on a line.
TELLS = r"""
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>
int main(void) {
  int one = 1, s = socket(AF_INET, SOCK_STREAM, 0);
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(atoi(getenv("PORT")))};
  setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (bind(s, (void *)&a, sizeof a) || listen(s, 64)) return 1;
  for (;;) {
    static char in[65536], out[65536];
    int c = accept(s, 0, 0), n = 0, r;
    while (n < (int)sizeof in - 1 && (r = read(c, in + n, sizeof in - 1 - n)) > 0) {
      in[n += r] = 0;
      char *end = strstr(in, "\r\n\r\n"), *length = strcasestr(in, "\r\ncontent-length:");
      if (end && n >= end + 4 - in + (length ? atoi(length + 17) : 0)) break;
    }
    int m = 0;
    for (int i = 0; i < n; i++) {
      if (in[i] == '\r') continue;
      out[m++] = in[i] == '\n' ? '|' : in[i];
    }
    out[m++] = '\n';
    if (n > 0) write(1, out, m);
    write(c, "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n", 46);
    close(c);
  }
}
"""


class Eventarc:
    """A client, and a service that says what it is sent."""

    def __init__(self, server):
        self.server = server
        transport = eventarc_v1.EventarcClient.get_transport_class("grpc")
        self.client = eventarc_v1.EventarcClient(transport=transport(channel=rpc_channel(server)))
        self.deployed = False

    def deploy(self):
        """Deploys the service, once."""
        if self.deployed:
            return
        if not shutil.which("gcc"):
            raise Skipped("gcc is not installed")
        root = self.server.folder / "tells"
        root.mkdir()
        subprocess.run(["gcc", "-static", "-Os", "-w", "-D_GNU_SOURCE", "-x", "c", "-", "-o", str(root / "tells")],
                       input=TELLS, text=True, check=True)
        self.server.lauf("image", "pack", str(root), "-t", "tells", "--entrypoint", "/tells", "--user", "1000:1000")
        self.server.lauf("deploy", "tells", "--image", "tells")
        policy = {"policy": {"bindings": [{"role": "roles/run.invoker", "members": [f"serviceAccount:{ACCOUNT}"]}]}}
        self.server.rest("POST", f"{REGION}/services/tells:setIamPolicy", policy, version="v2")
        self.deployed = True

    def told(self, part):
        """The requests in which something stands, each as its lines."""
        lines = self.server.lauf("logs", "tells", "-n", "200").splitlines()
        return [line.split("|") for line in lines if part in line and "POST " in line]

    def create(self, name, topic=None, **fields):
        """Makes a trigger."""
        trigger = {
            "event_filters": [{"attribute": "type", "value": PUBLISHED}],
            "destination": {"cloud_run": {"service": "tells", "region": "us-central1", "path": "/events"}},
            "service_account": ACCOUNT, **fields,
        }
        if topic:
            trigger["transport"] = {"pubsub": {"topic": topic}}
        return self.client.create_trigger(parent=REGION, trigger=trigger, trigger_id=name).result(WAIT)

    def publish(self, topic, text):
        """Publishes a message and says its id."""
        data = base64.b64encode(text.encode()).decode()
        return self.server.rest("POST", f"{topic}:publish", {"messages": [{"data": data}]})["messageIds"][0]


def a_message_comes_as_an_event(house):
    house.deploy()
    topic = f"{PROJECT}/topics/orders"
    house.server.rest("PUT", topic, {})
    trigger = house.create("orders", topic)
    expect("topic", trigger.transport.pubsub.topic, topic)
    house.publish(topic, "hello")
    sought = base64.b64encode(b"hello").decode()
    wait_for("the event", lambda: house.told(sought))
    lines = house.told(sought)[0]
    expect("path", "POST /events HTTP/1.1" in lines[0], True)
    headers = dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line and not line.startswith("{"))
    expect("type", headers["ce-type"], PUBLISHED.lower())
    expect("source", headers["ce-source"], f"//pubsub.googleapis.com/{topic}")
    expect("version", headers["ce-specversion"], "1.0")
    body = json.loads(lines[-1])
    expect("id", headers["ce-id"], body["message"]["messageId"])
    expect("subscription", body["subscription"], trigger.transport.pubsub.subscription)


def a_trigger_has_a_topic_of_its_own(house):
    house.deploy()
    trigger = house.create("own")
    topic = trigger.transport.pubsub.topic
    expect("visible", house.server.rest("GET", topic)["name"], topic)
    # What was made is there after a kill, and works.
    house.server.kill()
    house.server.start()
    house.publish(topic, "after the kill")
    wait_for("the event", lambda: house.told(base64.b64encode(b"after the kill").decode()))
    house.client.delete_trigger(name=trigger.name).result(WAIT)
    house.server.rest("GET", topic, code=404)
    house.server.rest("GET", trigger.transport.pubsub.subscription, code=404)
    fails(exceptions.NotFound, "own", lambda: house.client.get_trigger(name=trigger.name))


def what_is_done_comes_as_an_event(house):
    house.deploy()
    method = "google.cloud.run.v2.Services.CreateService"
    trigger = house.create("made", event_filters=[
        {"attribute": "type", "value": AUDIT},
        {"attribute": "serviceName", "value": "run.googleapis.com"},
        {"attribute": "methodName", "value": method},
        {"attribute": "resourceName", "value": "/projects/*/locations/*/services/made-*", "operator": "match-path-pattern"},
    ])
    body = {"template": {"containers": [{"image": "tells"}]}}
    for name in ["made-one", "not-made"]:
        house.server.rest("POST", f"{REGION}/services?serviceId={name}", body, version="v2")
    # Again: refused, and told as that.
    house.server.rest("POST", f"{REGION}/services?serviceId=made-one", body, version="v2", code=409)
    resource = f"{REGION}/services/made-one"
    wait_for("both events", lambda: len(house.told(f'"resourceName":"{resource}"')) >= 2)
    expect("others", house.told(f'"resourceName":"{REGION}/services/not-made"'), [])
    told = house.told(f'"resourceName":"{resource}"')
    entries = [json.loads(lines[-1]) for lines in told]
    codes = {entry["protoPayload"]["status"].get("code", 0) for entry in entries}
    expect("how it went", codes, {0, 6})
    headers = dict(line.split(": ", 1) for line in told[0][1:] if ": " in line and not line.startswith("{"))
    headers = {key.lower(): value for key, value in headers.items()}
    expect("type", headers["ce-type"], AUDIT)
    expect("method", headers["ce-methodname"], method)
    expect("subject", headers["ce-subject"], f"run.googleapis.com/{resource}")
    proto = entries[0]["protoPayload"]
    expect("who", bool(proto["authenticationInfo"]["principalEmail"]), True)
    expect("from where", proto["requestMetadata"]["callerIp"], "127.0.0.1")
    fails(exceptions.InvalidArgument, "leave this field out", lambda: house.create(
        "given", f"{PROJECT}/topics/orders", event_filters=list(trigger.event_filters)))
    house.client.delete_trigger(name=trigger.name).result(WAIT)


def events_of_ones_own_come_by_a_channel(house):
    house.deploy()
    channel = f"{REGION}/channels/shop"
    made = house.client.create_channel(parent=REGION, channel_id="shop", channel={"labels": {"a": "b"}}).result(WAIT)
    expect("channel", (made.name, made.state.name, dict(made.labels)), (channel, "ACTIVE", {"a": "b"}))
    expect("listed", [c.name for c in house.client.list_channels(parent=REGION)], [channel])
    trigger = house.create("orders-of-shop", channel=channel, event_filters=[
        {"attribute": "type", "value": "order.placed"},
        {"attribute": "country", "value": "de"},
        {"attribute": "subject", "value": "/orders/*/items", "operator": "match-path-pattern"},
    ])
    expect("its channel", trigger.channel, channel)

    def order(number, country="de", subject="/orders/7/items"):
        """An event as JSON."""
        return json.dumps({
            "specversion": "1.0", "id": f"order-{number}", "source": "//shop", "type": "order.placed", "subject": subject,
            "country": country, "data": {"sum": number},
        })

    # JSON and messages of protocol buffers, over gRPC.
    transport = eventarc_publishing_v1.PublisherClient.get_transport_class("grpc")
    publisher = eventarc_publishing_v1.PublisherClient(transport=transport(channel=rpc_channel(house.server)))
    event = eventarc_publishing_v1.CloudEvent(
        id="order-1", source="//shop", spec_version="1.0", type_="order.placed", binary_data=b'{"sum":1}',
        attributes={"country": {"ce_string": "de"}, "subject": {"ce_string": "/orders/1/items"},
                    "datacontenttype": {"ce_string": "application/json"}},
    )
    packed = any_pb2.Any(type_url="type.googleapis.com/io.cloudevents.v1.CloudEvent",
                         value=eventarc_publishing_v1.CloudEvent.serialize(event))
    texts = [order(2), order(3, country="at"), order(4, subject="/orders/items")]
    publisher.publish_events(request={"channel": channel, "events": [packed], "text_events": texts})
    house.server.rest("POST", f"{channel}:publishEvents", {"textEvents": [order(5)]})
    for number in (1, 2, 5):
        wait_for(f"event {number}", lambda number=number: house.told(f'{{"sum":{number}}}'))
    for number in (3, 4):
        expect(f"event {number}, which is not wanted", house.told(f'{{"sum":{number}}}'), [])
    lines = house.told('{"sum":1}')[0]
    headers = {key.lower(): value for key, value in (line.split(": ", 1) for line in lines[1:] if ": " in line)}
    expect("binary mode", [headers[f"ce-{name}"] for name in ("id", "type", "source", "country")],
           ["order-1", "order.placed", "//shop", "de"])
    expect("content type", headers["content-type"], "application/json")

    for body, part in [
        ({}, "There is no event"),
        ({"textEvents": ["x"]}, "text_events[0]"),
        ({"textEvents": ['{"id": "1"}']}, "events[0].source"),
        ({"events": [{"@type": "type.googleapis.com/google.protobuf.Empty", "value": {}}]}, "io.cloudevents.v1.CloudEvent"),
    ]:
        answer = house.server.rest("POST", f"{channel}:publishEvents", body, code=400)
        expect(f"{body}: {answer} says {part}", part in json.dumps(answer), True)
    house.server.rest("POST", f"{REGION}/channels/none:publishEvents", {"textEvents": [order(6)]}, code=404)
    fails(exceptions.FailedPrecondition, "orders-of-shop", lambda: house.client.delete_channel(name=channel))
    fails(exceptions.InvalidArgument, "channel.provider", lambda: house.client.create_channel(
        parent=REGION, channel_id="other", channel={"provider": f"{REGION}/providers/datadog"}))
    # All of it is there after a kill.
    house.server.kill()
    house.server.start()
    house.server.rest("POST", f"{channel}:publishEvents", {"textEvents": [order(7)]})
    wait_for("event 7", lambda: house.told('{"sum":7}'))
    changed = house.client.update_channel(channel={"name": channel, "labels": {"c": "d"}}, update_mask="labels").result(WAIT)
    expect("labels", dict(changed.labels), {"c": "d"})
    house.client.delete_trigger(name=trigger.name).result(WAIT)
    house.client.delete_channel(name=channel).result(WAIT)
    fails(exceptions.NotFound, "shop", lambda: house.client.get_channel(name=channel))


def a_pushed_image_comes_as_an_event(house):
    house.deploy()
    topic = f"{PROJECT}/topics/gcr"
    house.server.rest("PUT", topic, {})
    trigger = house.create("pushed", topic)
    house.server.lauf("image", "pack", str(house.server.folder / "tells"), "-t", "demo/told:v7", "--entrypoint", "/tells")
    name = f"127.0.0.1:{house.server.port}/demo/told"

    def pushed():
        """What the events say."""
        bodies = [json.loads(lines[-1]) for lines in house.told(trigger.transport.pubsub.subscription)]
        return [json.loads(base64.b64decode(body["message"]["data"])) for body in bodies]

    wait_for("the event", lambda: any(said.get("tag") == f"{name}:v7" for said in pushed()))
    said = next(said for said in pushed() if said.get("tag") == f"{name}:v7")
    expect("action", said["action"], "INSERT")
    expect("digest", said["digest"].startswith(f"{name}@sha256:"), True)
    url = f"http://127.0.0.1:{house.server.port}/v2/demo/told/manifests/v7"
    answer = requests.delete(url, headers={"authorization": f"Bearer {house.server.token}"}, timeout=WAIT)
    expect("deleted", answer.status_code, 202)
    wait_for("the other event", lambda: {"action": "DELETE", "tag": f"{name}:v7"} in pushed())
    house.client.delete_trigger(name=trigger.name).result(WAIT)


def a_trigger_is_changed(house):
    house.deploy()
    trigger = house.create("moving")
    topic = trigger.transport.pubsub.topic
    destination = {"cloud_run": {"service": "tells", "region": "us-central1", "path": "/elsewhere"}}
    change = {"name": trigger.name, "destination": destination, "labels": {"a": "b"}, "service_account": "nobody@example.com"}
    changed = house.client.update_trigger(trigger=change, update_mask="destination,labels").result(WAIT)
    expect("changed", (changed.destination.cloud_run.path, dict(changed.labels)), ("/elsewhere", {"a": "b"}))
    expect("not in the mask", changed.service_account, ACCOUNT)
    expect("when", changed.update_time > changed.create_time, True)
    house.publish(topic, "moved")
    sought = base64.b64encode(b"moved").decode()
    wait_for("the event", lambda: house.told(sought))
    expect("where", "POST /elsewhere HTTP/1.1" in house.told(sought)[0][0], True)
    audit = [{"attribute": "type", "value": AUDIT}, {"attribute": "serviceName", "value": "run.googleapis.com"},
             {"attribute": "methodName", "value": "x"}]
    nobody = {"cloud_run": {"service": "nobody", "region": "us-central1"}}
    for fields, mask, part in [
        ({"event_filters": audit}, "eventFilters", "cannot be changed"),
        ({"destination": nobody}, "destination", "There is no service 'nobody'"),
        ({"transport": {"pubsub": {"topic": f"{PROJECT}/topics/orders"}}}, "transport", "update_mask"),
    ]:
        fails(exceptions.InvalidArgument, part, lambda fields=fields, mask=mask: house.client.update_trigger(
            trigger={"name": trigger.name, **fields}, update_mask=mask))
    fails(exceptions.NotFound, "none", lambda: house.client.update_trigger(
        trigger={"name": f"{REGION}/triggers/none"}, update_mask="labels"))
    house.client.delete_trigger(name=trigger.name).result(WAIT)


def nobody_but_an_invoker_is_let_in(house):
    house.deploy()
    trigger = house.create("stranger", service_account="stranger@demo.iam.gserviceaccount.com")
    house.publish(trigger.transport.pubsub.topic, "let me in")

    def statuses():
        log = "projects/demo/logs/run.googleapis.com%2Frequests"
        answer = requests.post(
            f"http://127.0.0.1:{house.server.port}/v2/entries:list", timeout=WAIT,
            json={"resourceNames": [PROJECT], "filter": f'logName="{log}"', "pageSize": 100},
            headers={"authorization": f"Bearer {house.server.token}", "host": "logging.googleapis.com"},
        )
        return [entry["httpRequest"]["status"] for entry in answer.json().get("entries", [])]

    wait_for("a refusal", lambda: 403 in statuses())
    expect("told", house.told(base64.b64encode(b"let me in").decode()), [])
    house.client.delete_trigger(name=trigger.name).result(WAIT)


def each_wrong_field_is_named(house):
    house.deploy()
    audit = {"attribute": "type", "value": AUDIT}
    service_name = {"attribute": "serviceName", "value": "run.googleapis.com"}
    bad_path = {"attribute": "resourceName", "value": "a/**b", "operator": "match-path-pattern"}
    filters = [{"attribute": "type", "value": "google.cloud.storage.object.v1.finalized"}]
    service = {"cloud_run": {"service": "nobody", "region": "us-central1"}}
    for fields, part in [
        ({"event_filters": filters}, "google.cloud.storage.object.v1.finalized"),
        ({"event_filters": [audit, service_name]}, "methodName"),
        ({"event_filters": [audit, bad_path]}, "path pattern"),
        ({"event_filters": []}, "type="),
        ({"destination": service}, "There is no service 'nobody'"),
        ({"destination": {"workflow": "projects/p/locations/l/workflows/w"}}, "trigger.destination.workflow"),
        ({"service_account": "nobody"}, "trigger.service_account"),
    ]:
        fails(exceptions.InvalidArgument, part, lambda fields=fields: house.create("wrong", **fields))
    fails(exceptions.NotFound, "not found", lambda: house.create("wrong", f"{PROJECT}/topics/none"))
    fails(exceptions.InvalidArgument, "trigger_id", lambda: house.create("Wrong"))
    expect("none", "wrong" in [t.name.split("/")[-1] for t in house.client.list_triggers(parent=REGION)], False)
    house.create("twice")
    fails(exceptions.AlreadyExists, "already exists", lambda: house.create("twice"))


def gcloud(house):
    """The commands of `gcloud eventarc`."""
    house.deploy()
    client = Gcloud(house.server)
    run, read = client.run, client.read
    where = "--location=us-central1"
    run(f"eventarc triggers create notes {where} --destination-run-service=tells --destination-run-region=us-central1"
        f" --event-filters=type={PUBLISHED} --service-account={ACCOUNT}")
    notes = read(f"eventarc triggers describe notes {where}")
    topic = notes["transport"]["pubsub"]["topic"]
    run(f"pubsub topics publish {topic} --message=from-gcloud")
    wait_for("the event", lambda: house.told(base64.b64encode(b"from-gcloud").decode()))
    run(f"eventarc triggers create notes {where} --destination-run-service=tells --destination-run-region=us-central1"
        f" --event-filters=type={PUBLISHED} --service-account={ACCOUNT}", wrong="already exists")
    run(f"eventarc triggers create bad {where} --destination-run-service=none --destination-run-region=us-central1"
        f" --event-filters=type={PUBLISHED} --service-account={ACCOUNT}", wrong="There is no service")
    expect("triggers", "notes" in [t["name"].split("/")[-1] for t in read(f"eventarc triggers list {where}")], True)
    providers = [p["name"].split("/")[-1] for p in read(f"eventarc providers list {where}")]
    expect("providers", {"pubsub.googleapis.com", "run.googleapis.com"} <= set(providers), True)
    run(f"eventarc triggers create deploys {where} --destination-run-service=tells --destination-run-region=us-central1"
        f" --event-filters=type={AUDIT} --event-filters=serviceName=run.googleapis.com"
        " --event-filters=methodName=google.cloud.run.v1.Services.ReplaceService"
        " --event-filters-path-pattern=resourceName=/namespaces/demo/services/gcl-*"
        f" --service-account={ACCOUNT}")
    for name in ["gcl-one", "other-one"]:
        run(f"run deploy {name} --image=tells --region=us-central1")
        run(f"run services update {name} --region=us-central1 --update-env-vars=A=1")
    wait_for("the event", lambda: house.told("namespaces/demo/services/gcl-one"))
    expect("others", house.told("namespaces/demo/services/other-one"), [])
    # The audit log itself.
    log = read("logging read protoPayload.methodName:ReplaceService")
    written = [entry["protoPayload"]["resourceName"] for entry in log]
    expect("in the log", "namespaces/demo/services/other-one" in written, True)
    run(f"eventarc triggers delete deploys {where}")
    # A channel, and what is published to it.
    run(f"eventarc channels create parcels {where}")
    run(f"eventarc triggers create parcels {where} --destination-run-service=tells --destination-run-region=us-central1"
        f" --channel=parcels --event-filters=type=parcel.sent --event-filters=size=xl --service-account={ACCOUNT}")
    run("eventarc channels publish parcels --location=us-central1 --event-id=1 --event-type=parcel.sent --event-source=//post"
        ' --event-data={"parcel":"from-gcloud"} --event-attributes=size=xl')
    wait_for("the event", lambda: house.told('{"parcel":"from-gcloud"}'))
    expect("channels", [c["state"] for c in read(f"eventarc channels list {where}")], ["ACTIVE"])
    run(f"eventarc channels delete parcels {where}", wrong="delete the trigger first")
    run(f"eventarc triggers update parcels {where} --destination-run-path=/other")
    expect("path", read(f"eventarc triggers describe parcels {where}")["destination"]["cloudRun"]["path"], "/other")
    run(f"eventarc triggers delete parcels {where}")
    run(f"eventarc channels delete parcels {where}")
    run(f"eventarc triggers delete notes {where}")
    run(f"eventarc triggers describe notes {where}", wrong="not found")


def stories(server):
    house = Eventarc(server)
    for story in [
        a_message_comes_as_an_event,
        a_trigger_has_a_topic_of_its_own,
        what_is_done_comes_as_an_event,
        events_of_ones_own_come_by_a_channel,
        a_pushed_image_comes_as_an_event,
        a_trigger_is_changed,
        nobody_but_an_invoker_is_let_in,
        each_wrong_field_is_named,
        gcloud,
    ]:
        yield story.__name__, story, house


if __name__ == "__main__":
    sys.exit(tell_all(stories))
