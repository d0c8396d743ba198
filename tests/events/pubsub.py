#!/usr/bin/env python3
"""Pub/Sub as its users have it: the unmodified google-cloud-pubsub client and gcloud, against `lauf up`.

    LAUF_BIN=target/debug/lauf tests/events/pubsub.py

Each story of a client is told twice: as with Google's emulator (PUBSUB_EMULATOR_HOST, no credentials), and on
the API's own address with the administrator's token. SAMPLES, if set, is where the samples' folders are; pushes
to a service are skipped without.
"""

import base64
import concurrent.futures
import json
import os
import pathlib
import subprocess
import sys
import threading
import time

import grpc
import requests
from google.api_core import exceptions
from google.cloud import pubsub_v1
from google.cloud.pubsub_v1.subscriber import exceptions as subscriber_exceptions
from google.protobuf import duration_pb2, field_mask_pb2
from google.pubsub_v1 import PublisherClient
from google.pubsub_v1.types import Encoding, Schema

from house import PROJECT, WAIT, Failed, Gcloud, Skipped, channel, expect, fails, tell_all, wait_for


class Clients:
    """Publisher, subscriber and schema clients, one way or the other."""

    def __init__(self, server, way):
        self.server = server
        self.way = way
        self.count = 0

    def transport(self, kind):
        return kind.get_transport_class("grpc")(channel=channel(self.server))

    def make(self, kind, **settings):
        if self.way == "emulator":
            os.environ["PUBSUB_EMULATOR_HOST"] = f"127.0.0.1:{self.server.emulator}"
            try:
                return kind(**settings)
            finally:
                del os.environ["PUBSUB_EMULATOR_HOST"]
        gapic = kind.__mro__[1] if kind is not pubsub_v1.SchemaServiceClient else kind
        return kind(transport=self.transport(gapic), **settings)

    def publisher(self, **settings):
        return self.make(pubsub_v1.PublisherClient, **settings)

    def subscriber(self):
        return self.make(pubsub_v1.SubscriberClient)

    def schemas(self):
        return self.make(pubsub_v1.SchemaServiceClient)

    def name(self, collection):
        """A name that nothing has."""
        self.count += 1
        return f"{PROJECT}/{collection}/{self.way}-{self.count}-{int(time.time())}"

    def pair(self, **settings):
        """A topic and a subscription of it."""
        topic, subscription = self.name("topics"), self.name("subscriptions")
        self.publisher().create_topic(name=topic)
        self.subscriber().create_subscription(
            request={"name": subscription, "topic": topic, **settings}
        )
        return topic, subscription


def pull(subscriber, subscription, count, wait=WAIT):
    """Pulls until there are `count` messages."""
    got, deadline = [], time.monotonic() + wait
    while len(got) < count and time.monotonic() < deadline:
        answer = subscriber.pull(subscription=subscription, max_messages=count - len(got), timeout=30)
        got.extend(answer.received_messages)
    expect("messages", len(got), count)
    return got


def nothing(subscriber, subscription):
    """There is no message now."""
    answer = subscriber.pull(
        request={"subscription": subscription, "max_messages": 10, "return_immediately": True}
    )
    expect("messages", [m.message.data for m in answer.received_messages], [])


# --- Stories.


def a_thousand_messages_through_a_stream(clients):
    topic, subscription = clients.pair()
    publisher, subscriber = clients.publisher(), clients.subscriber()
    futures = [
        publisher.publish(topic, f"m{n}".encode(), n=str(n), even=str(n % 2 == 0)) for n in range(1000)
    ]
    ids = [future.result(WAIT) for future in futures]
    expect("distinct ids", len(set(ids)), 1000)
    seen, done = {}, threading.Event()

    def receive(message):
        seen[message.message_id] = (message.data.decode(), message.attributes["n"], message.publish_time)
        message.ack()
        if len(seen) == 1000:
            done.set()

    stream = subscriber.subscribe(subscription, receive)
    if not done.wait(WAIT):
        raise Failed(f"{len(seen)} of 1000 messages came")
    stream.cancel()
    stream.result(WAIT)
    expect("ids", set(seen), set(ids))
    expect("attributes", {text == f"m{n}" for text, n, _ in seen.values()}, {True})
    nothing(subscriber, subscription)


def what_is_given_back_comes_again(clients):
    topic, subscription = clients.pair()
    publisher, subscriber = clients.publisher(), clients.subscriber()
    publisher.publish(topic, b"again").result(WAIT)
    got = pull(subscriber, subscription, 1)
    nothing(subscriber, subscription)
    ids = [got[0].ack_id]
    subscriber.modify_ack_deadline(subscription=subscription, ack_ids=ids, ack_deadline_seconds=0)
    got = pull(subscriber, subscription, 1)
    expect("data", got[0].message.data, b"again")
    expect("attempt without a policy", got[0].delivery_attempt, 0)
    subscriber.acknowledge(subscription=subscription, ack_ids=[got[0].ack_id])
    nothing(subscriber, subscription)


def messages_of_a_key_come_in_order(clients):
    topic, subscription = clients.pair(enable_message_ordering=True)
    options = pubsub_v1.types.PublisherOptions(enable_message_ordering=True)
    publisher, subscriber = clients.publisher(publisher_options=options), clients.subscriber()
    for n in range(200):
        publisher.publish(topic, str(n).encode(), ordering_key=f"key-{n % 4}")
    seen, done = {}, threading.Event()
    given_back = set()

    def receive(message):
        # One message of each key is given back once: those after it come again too.
        number = int(message.data)
        if number in range(100, 104) and number not in given_back:
            given_back.add(number)
            message.nack()
            return
        seen.setdefault(message.ordering_key, []).append(number)
        message.ack()
        if len(seen) == 4 and all(in_order(numbers) for numbers in seen.values()):
            done.set()

    def in_order(numbers):
        # What came after the failure comes again after it, whatever had been said of it.
        last = list(dict.fromkeys(reversed(numbers)))[::-1]
        return len(last) == 50 and last == sorted(last)

    stream = subscriber.subscribe(subscription, receive)
    if not done.wait(20):
        raise Failed(f"{seen} came")
    stream.cancel()
    stream.result(WAIT)
    for key, numbers in seen.items():
        before = [n for n in numbers if n < 100]
        expect(f"order of {key} before the failure", before, sorted(before))


def exactly_once_answers_acknowledgements(clients):
    topic, subscription = clients.pair(enable_exactly_once_delivery=True)
    publisher, subscriber = clients.publisher(), clients.subscriber()
    futures = [publisher.publish(topic, str(n).encode()) for n in range(50)]
    concurrent.futures.wait(futures, WAIT)
    answers, seen, done = [], [], threading.Event()

    def receive(message):
        seen.append(message.data)
        answers.append(message.ack_with_response())
        if len(seen) == 50:
            done.set()

    stream = subscriber.subscribe(subscription, receive)
    if not done.wait(WAIT):
        raise Failed(f"{len(seen)} of 50 messages came")
    for answer in answers:
        expect("acknowledgement", str(answer.result(WAIT)), "AcknowledgeStatus.SUCCESS")
    stream.cancel()
    stream.result(WAIT)
    expect("each once", len(set(seen)), 50)

    publisher.publish(topic, b"stale").result(WAIT)
    got = pull(subscriber, subscription, 1)
    subscriber.modify_ack_deadline(
        subscription=subscription, ack_ids=[got[0].ack_id], ack_deadline_seconds=0
    )
    error = fails(
        exceptions.InvalidArgument, "invalid",
        lambda: subscriber.acknowledge(subscription=subscription, ack_ids=[got[0].ack_id]),
    )
    reasons = {detail.metadata.get(got[0].ack_id) for detail in error.details if hasattr(detail, "metadata")}
    expect("reason", reasons, {"PERMANENT_FAILURE_INVALID_ACK_ID"})
    assert subscriber_exceptions.AcknowledgeStatus.SUCCESS


def poison_goes_to_the_dead_letters(clients):
    dead, morgue = clients.pair()
    topic, subscription = clients.pair(
        dead_letter_policy={"dead_letter_topic": dead, "max_delivery_attempts": 5}
    )
    publisher, subscriber = clients.publisher(), clients.subscriber()
    publisher.publish(topic, b"poison", kind="bad").result(WAIT)
    for attempt in range(1, 6):
        got = pull(subscriber, subscription, 1)
        expect("attempt", got[0].delivery_attempt, attempt)
        ids = [got[0].ack_id]
        subscriber.modify_ack_deadline(subscription=subscription, ack_ids=ids, ack_deadline_seconds=0)
    letter = pull(subscriber, morgue, 1)[0].message
    expect("data", letter.data, b"poison")
    expect("own attribute", letter.attributes["kind"], "bad")
    expect("count", letter.attributes["CloudPubSubDeadLetterSourceDeliveryCount"], "5")
    nothing(subscriber, subscription)


def filters_select(clients):
    topic, subscription = clients.pair(filter='attributes.lang = "de" OR hasPrefix(attributes.lang, "en-")')
    publisher, subscriber = clients.publisher(), clients.subscriber()
    for lang in ["de", "fr", "en-US", "en", "de-AT"]:
        publisher.publish(topic, lang.encode(), lang=lang).result(WAIT)
    publisher.publish(topic, b"none").result(WAIT)
    got = pull(subscriber, subscription, 2)
    expect("selected", sorted(m.message.data for m in got), [b"de", b"en-US"])
    nothing(subscriber, subscription)
    fails(
        exceptions.InvalidArgument, "character",
        lambda: clients.pair(filter="attributes.lang = de"),
    )


def one_goes_back_in_time(clients):
    topic, subscription = clients.pair(retain_acked_messages=True)
    publisher, subscriber = clients.publisher(), clients.subscriber()
    publisher.publish(topic, b"first").result(WAIT)
    got = pull(subscriber, subscription, 1)
    begin = got[0].message.publish_time
    snapshot = clients.name("snapshots")
    made = subscriber.create_snapshot(name=snapshot, subscription=subscription)
    expect("topic", made.topic, topic)
    subscriber.acknowledge(subscription=subscription, ack_ids=[got[0].ack_id])
    publisher.publish(topic, b"second").result(WAIT)
    got = pull(subscriber, subscription, 1)
    subscriber.acknowledge(subscription=subscription, ack_ids=[got[0].ack_id])
    nothing(subscriber, subscription)
    subscriber.seek(request={"subscription": subscription, "time": begin})
    got = pull(subscriber, subscription, 2)
    expect("again", [m.message.data for m in got], [b"first", b"second"])
    subscriber.acknowledge(subscription=subscription, ack_ids=[m.ack_id for m in got])
    subscriber.seek(request={"subscription": subscription, "snapshot": snapshot})
    got = pull(subscriber, subscription, 2)
    expect("from the snapshot", [m.message.data for m in got], [b"first", b"second"])
    listed = {s.name for s in subscriber.list_snapshots(project=PROJECT)}
    expect("listed", snapshot in listed, True)
    subscriber.delete_snapshot(snapshot=snapshot)


def schemas_hold(clients):
    schemas, publisher, subscriber = clients.schemas(), clients.publisher(), clients.subscriber()
    avro = json.dumps(
        {"type": "record", "name": "State", "fields": [
            {"name": "name", "type": "string"}, {"name": "area", "type": ["null", "double"]}]}
    )
    proto = 'syntax = "proto3"; message State { string name = 1; int32 rank = 2; }'
    cases = [
        (Schema.Type.AVRO, avro, Encoding.JSON, b'{"name": "Ohio", "area": {"double": 1.5}}', b'{"name": 1}'),
        (Schema.Type.PROTOCOL_BUFFER, proto, Encoding.BINARY, b"\x0a\x04Ohio\x10\x07", b"\x0a\x7f"),
    ]
    for kind, definition, encoding, good, bad in cases:
        name = clients.name("schemas")
        made = schemas.create_schema(
            parent=PROJECT, schema=Schema(type_=kind, definition=definition), schema_id=name.split("/")[-1]
        )
        expect("name", made.name, name)
        topic, subscription = clients.name("topics"), clients.name("subscriptions")
        publisher.create_topic(
            request={"name": topic, "schema_settings": {"schema": name, "encoding": encoding}}
        )
        subscriber.create_subscription(name=subscription, topic=topic)
        publisher.publish(topic, good).result(WAIT)
        fails(
            exceptions.InvalidArgument, "schema", lambda: publisher.publish(topic, bad).result(WAIT)
        )
        got = pull(subscriber, subscription, 1)[0].message
        expect("schema", got.attributes["googclient_schemaname"], name)
        expect("revision", got.attributes["googclient_schemarevisionid"], made.revision_id)
        schemas.validate_message(
            request={"parent": PROJECT, "name": name, "message": good, "encoding": encoding}
        )
        publisher.delete_topic(topic=topic)
        schemas.delete_schema(name=name)
    fails(
        exceptions.InvalidArgument, "not understood",
        lambda: schemas.validate_schema(
            parent=PROJECT, schema=Schema(type_=Schema.Type.AVRO, definition="{}")
        ),
    )


def resources_live_and_die(clients):
    publisher, subscriber = clients.publisher(), clients.subscriber()
    topic, subscription = clients.pair(
        labels={"team": "a"}, ack_deadline_seconds=30,
        retry_policy={"minimum_backoff": duration_pb2.Duration(seconds=5)},
        expiration_policy={"ttl": duration_pb2.Duration(seconds=31 * 86400)},
    )
    found = subscriber.get_subscription(subscription=subscription)
    expect("deadline", found.ack_deadline_seconds, 30)
    expect("labels", dict(found.labels), {"team": "a"})
    expect("backoff", found.retry_policy.minimum_backoff.seconds, 5)
    expect("retention", found.message_retention_duration.days, 7)
    changed = subscriber.update_subscription(request={
        "subscription": {"name": subscription, "topic": topic, "ack_deadline_seconds": 60},
        "update_mask": field_mask_pb2.FieldMask(paths=["ack_deadline_seconds"]),
    })
    expect("changed", (changed.ack_deadline_seconds, dict(changed.labels)), (60, {"team": "a"}))
    fails(
        exceptions.InvalidArgument, "filter",
        lambda: subscriber.update_subscription(request={
            "subscription": {"name": subscription, "topic": topic, "filter": "attributes:x"},
            "update_mask": field_mask_pb2.FieldMask(paths=["filter"]),
        }),
    )
    publisher.update_topic(request={
        "topic": {"name": topic, "labels": {"x": "y"}}, "update_mask": {"paths": ["labels"]}
    })
    expect("topic", dict(publisher.get_topic(topic=topic).labels), {"x": "y"})
    expect("listed", topic in {t.name for t in publisher.list_topics(project=PROJECT)}, True)
    expect("of the topic", list(publisher.list_topic_subscriptions(topic=topic)), [subscription])
    fails(exceptions.AlreadyExists, "already exists", lambda: publisher.create_topic(name=topic))
    fails(exceptions.NotFound, "not found", lambda: publisher.get_topic(topic=f"{PROJECT}/topics/none"))
    fails(
        exceptions.InvalidArgument, "is not an id",
        lambda: publisher.create_topic(name=f"{PROJECT}/topics/1bad"),
    )
    policy = subscriber.get_iam_policy(request={"resource": subscription})
    policy.bindings.add(role="roles/pubsub.subscriber", members=["user:a@example.com"])
    subscriber.set_iam_policy(request={"resource": subscription, "policy": policy})
    policy = subscriber.get_iam_policy(request={"resource": subscription})
    expect("policy", [b.role for b in policy.bindings], ["roles/pubsub.subscriber"])
    publisher.delete_topic(topic=topic)
    found = subscriber.get_subscription(subscription=subscription)
    expect("topic", found.topic, "_deleted-topic_")
    subscriber.delete_subscription(subscription=subscription)
    fails(
        exceptions.NotFound, "not found",
        lambda: subscriber.pull(subscription=subscription, max_messages=1),
    )


def large_messages_and_too_large_ones(clients):
    topic, subscription = clients.pair()
    publisher, subscriber = clients.publisher(), clients.subscriber()
    # The client splits by its own limit; the plain call sends what it is given.
    def gapic(**asked):
        return PublisherClient.publish(publisher, **asked)

    gapic(topic=topic, messages=[{"data": b"x" * 10_000_000}], timeout=WAIT)
    fails(
        exceptions.InvalidArgument, "10000001",
        lambda: gapic(topic=topic, messages=[{"data": b"x" * 10_000_001}], timeout=WAIT),
    )
    fails(
        exceptions.InvalidArgument, "1001 messages",
        lambda: gapic(topic=topic, messages=[{"data": b"x"}] * 1001, timeout=WAIT),
    )
    fails(
        exceptions.InvalidArgument, "neither data nor attributes",
        lambda: gapic(topic=topic, messages=[{}], timeout=WAIT),
    )
    if clients.way == "emulator":
        # There the client takes no more than gRPC's own 4 MiB.
        got = clients.server.rest("POST", f"{subscription}:pull", {"maxMessages": 1})["receivedMessages"]
        expect("size", len(base64.b64decode(got[0]["message"]["data"])), 10_000_000)
    else:
        got = pull(subscriber, subscription, 1)
        expect("size", len(got[0].message.data), 10_000_000)


def a_killed_server_loses_nothing(clients):
    topic, subscription = clients.pair()
    publisher = clients.publisher()
    acknowledged, stop = set(), threading.Event()

    def publish():
        number = 0
        while not stop.is_set():
            futures = {number + n: publisher.publish(topic, str(number + n).encode()) for n in range(50)}
            for sent, future in futures.items():
                # The client tries again by itself while the server is away.
                future.result(WAIT)
                acknowledged.add(sent)
            number += 50

    thread = threading.Thread(target=publish)
    thread.start()
    for _ in range(3):
        time.sleep(1)
        clients.server.kill()
        clients.server.start()
    stop.set()
    thread.join(WAIT)
    seen, missing = set(), set(acknowledged)
    subscriber = clients.subscriber()
    stream = subscriber.subscribe(
        subscription, lambda message: (seen.add(int(message.data)), message.ack())
    )
    deadline = time.monotonic() + WAIT
    while missing and time.monotonic() < deadline:
        time.sleep(0.1)
        missing -= seen
    stream.cancel()
    stream.result(WAIT)
    expect(f"lost of {len(acknowledged)}", missing, set())


STORIES = [
    a_thousand_messages_through_a_stream,
    what_is_given_back_comes_again,
    messages_of_a_key_come_in_order,
    exactly_once_answers_acknowledgements,
    poison_goes_to_the_dead_letters,
    filters_select,
    one_goes_back_in_time,
    schemas_hold,
    resources_live_and_die,
    large_messages_and_too_large_ones,
    a_killed_server_loses_nothing,
]


def rest_alone(server):
    """The JSON form, as curl and gcloud send it."""
    topic, subscription = f"{PROJECT}/topics/rest", f"{PROJECT}/subscriptions/rest"
    made = server.rest("PUT", topic, {"labels": {"a": "b"}})
    expect("topic", made["name"], topic)
    expect("again", server.rest("PUT", topic, {}, 409)["error"]["status"], "ALREADY_EXISTS")
    made = server.rest("PUT", subscription, {"topic": topic, "ackDeadlineSeconds": 20})
    expect("deadline", made["ackDeadlineSeconds"], 20)
    data = base64.b64encode(b"hello").decode()
    sent = server.rest(
        "POST", f"{topic}:publish", {"messages": [{"data": data, "attributes": {"k": "v"}}]}
    )
    expect("ids", len(sent["messageIds"]), 1)
    got = server.rest("POST", f"{subscription}:pull", {"maxMessages": 5})["receivedMessages"][0]
    expect("message", (got["message"]["data"], got["message"]["attributes"]), (data, {"k": "v"}))
    expect("id", got["message"]["messageId"], sent["messageIds"][0])
    server.rest("POST", f"{subscription}:acknowledge", {"ackIds": [got["ackId"]]})
    error = server.rest("POST", f"{subscription}:acknowledge", {"ackIds": ["nonsense"]}, 400)
    expect("status", error["error"]["status"], "INVALID_ARGUMENT")
    error = server.rest("PUT", f"{PROJECT}/subscriptions/x", {"topic": topic}, 400)
    expect("field", error["error"]["details"][0]["fieldViolations"][0]["field"], "name")
    expect("gone", server.rest("DELETE", subscription), {})
    server.rest("GET", subscription, code=404)
    # The project's number means the same.
    expect("listed", topic in [t["name"] for t in server.rest("GET", f"{PROJECT}/topics")["topics"]], True)
    nobody = requests.get(f"http://127.0.0.1:{server.port}/v1/{topic}", timeout=WAIT)
    expect("without a token", nobody.status_code, 401)


def lauf_events_tail(server):
    """The command line shows what is published from the moment it says so, and leaves nothing behind."""
    topic = f"{PROJECT}/topics/seen"
    server.rest("PUT", topic, {})
    tail = subprocess.Popen(
        [os.environ["LAUF_BIN"], "--data", str(server.data), "events", "tail", "seen", "-n", "2", "--format", "json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )
    try:
        subscribed = f"{topic}/subscriptions"
        wait_for("its subscription", lambda: server.rest("GET", subscribed).get("subscriptions"))
        data = base64.b64encode(b"hello").decode()
        for k in ["one", "two"]:
            server.rest("POST", f"{topic}:publish", {"messages": [{"data": data, "attributes": {"k": k}}]})
        out, err = tail.communicate(timeout=WAIT)
    finally:
        tail.kill()
    expect(err, tail.returncode, 0)
    seen = [json.loads(line) for line in out.splitlines()]
    expect("topics", {entry["topic"] for entry in seen}, {"seen"})
    expect("messages", sorted(entry["message"]["attributes"]["k"] for entry in seen), ["one", "two"])
    expect("left over", server.rest("GET", subscribed).get("subscriptions", []), [])
    server.rest("DELETE", topic)


def push_wakes_a_service(server):
    """Pushes with an identity start a service from zero, and only with the identity."""
    samples = pathlib.Path(os.environ.get("SAMPLES", ""))
    rootfs = samples / "hello" / "rootfs"
    if not rootfs.exists():
        raise Skipped("SAMPLES does not say where the sample `hello` is")
    server.lauf("image", "pack", str(rootfs), "-t", "hello", "--entrypoint", "/hello")
    server.lauf("deploy", "hello", "--image", "hello")
    url = server.lauf("url", "hello").strip()
    topic, subscription = f"{PROJECT}/topics/push", f"{PROJECT}/subscriptions/push"
    account = "pusher@demo.iam.gserviceaccount.com"
    server.rest("PUT", topic, {})
    server.rest("PUT", subscription, {
        "topic": topic, "ackDeadlineSeconds": 30,
        "pushConfig": {"pushEndpoint": f"{url}/echo", "oidcToken": {"serviceAccountEmail": account}},
        "retryPolicy": {"minimumBackoff": "0s", "maximumBackoff": "1s"},
    })
    dead = "projects/demo/locations/us-central1/services/hello"
    data = base64.b64encode(b"wake up").decode()
    server.rest("POST", f"{topic}:publish", {"messages": [{"data": data}]})

    def statuses():
        """What pushes were answered, as Cloud Logging has it."""
        log = "projects/demo/logs/run.googleapis.com%2Frequests"
        asked = {"resourceNames": [PROJECT], "filter": f'logName="{log}"', "pageSize": 100}
        answer = requests.post(
            f"http://127.0.0.1:{server.port}/v2/entries:list", json=asked, timeout=WAIT,
            headers={"authorization": f"Bearer {server.token}", "host": "logging.googleapis.com"},
        )
        requested = [entry["httpRequest"] for entry in answer.json().get("entries", [])]
        return [one["status"] for one in requested if one["requestUrl"].endswith("/echo")]

    wait_for("a refusal", lambda: 403 in statuses())
    policy = {"policy": {"bindings": [{"role": "roles/run.invoker", "members": [f"serviceAccount:{account}"]}]}}
    answer = requests.post(
        f"http://127.0.0.1:{server.port}/v2/{dead}:setIamPolicy", json=policy, timeout=WAIT,
        headers={"authorization": f"Bearer {server.token}"},
    )
    expect(answer.text, answer.status_code, 200)
    try:
        wait_for("a delivery", lambda: 200 in statuses(), 20)
    except Failed as error:
        raise Failed(f"{error}; pushes were answered {sorted(set(statuses()))}") from error


def gcloud(server):
    """The commands of `gcloud pubsub`."""
    client = Gcloud(server)
    run, read = client.run, client.read

    run("pubsub topics create orders --labels=team=a --message-retention-duration=1h")
    run("pubsub topics create orders", wrong="already exists")
    run("pubsub topics describe nothing", wrong="not found")
    run("pubsub topics create dead")
    run("pubsub subscriptions create work --topic=orders --ack-deadline=20 --enable-message-ordering"
        " --dead-letter-topic=dead --max-delivery-attempts=7 --min-retry-delay=1s --max-retry-delay=10s")
    work = read("pubsub subscriptions describe work")
    expect("attempts", work["deadLetterPolicy"]["maxDeliveryAttempts"], 7)
    run("pubsub subscriptions create bad --topic=orders --message-filter=attributes.x=", wrong="filter")
    run("pubsub topics publish orders --message=hello --attribute=k=v --ordering-key=o")
    got = read("pubsub subscriptions pull work --limit=5")
    expect("data", base64.b64decode(got[0]["message"]["data"]), b"hello")
    run(f"pubsub subscriptions ack work --ack-ids={got[0]['ackId']}")
    run("pubsub topics publish orders --message=two")
    expect("auto-ack", len(read("pubsub subscriptions pull work --auto-ack")), 1)
    run("pubsub subscriptions update work --ack-deadline=40 --update-labels=x=y")
    expect("updated", read("pubsub subscriptions describe work")["ackDeadlineSeconds"], 40)
    run("pubsub subscriptions create pushed --topic=orders --push-endpoint=https://example.invalid/x"
        " --push-auth-service-account=a@demo.iam.gserviceaccount.com")
    run("pubsub subscriptions modify-push-config pushed --push-endpoint=")
    run("pubsub subscriptions modify-message-ack-deadline work --ack-ids=x --ack-deadline=0", wrong="ack ID")
    run("pubsub snapshots create snap --subscription=work")
    run("pubsub subscriptions seek work --snapshot=snap")
    run("pubsub subscriptions seek work --time=2026-01-01T00:00:00Z")
    expect("snapshots", len(read("pubsub snapshots list")), 1)
    run("pubsub snapshots delete snap")
    expect("subscriptions", len(read("pubsub topics list-subscriptions orders")), 2)
    expect("topics", {"orders", "dead"} <= {t["name"].split("/")[-1] for t in read("pubsub topics list")}, True)
    run("pubsub topics add-iam-policy-binding orders --member=user:a@example.com --role=roles/pubsub.publisher")
    expect("policy", len(read("pubsub topics get-iam-policy orders")["bindings"]), 1)
    run("pubsub subscriptions add-iam-policy-binding work --member=allUsers --role=roles/pubsub.subscriber")
    definition = server.folder / "schema.avsc"
    definition.write_text('{"type":"record","name":"A","fields":[{"name":"n","type":"int"}]}')
    run(f"pubsub schemas create numbers --type=avro --definition-file={definition}")
    run("pubsub topics create typed --schema=numbers --message-encoding=json")
    run('pubsub topics publish typed --message={"n":1}')
    run('pubsub topics publish typed --message={"n":"x"}', wrong="schema")
    run("pubsub schemas list")
    run("pubsub topics detach-subscription work")
    run("pubsub topics delete typed")
    run("pubsub schemas delete numbers")
    run("pubsub subscriptions delete work pushed")
    run("pubsub topics delete orders dead")
    run("pubsub topics delete orders", wrong="not found")


def stories(server):
    """Each story of a client twice, and then the others."""
    for way in ["emulator", "own"]:
        clients = Clients(server, way)
        for story in STORIES:
            yield f"{story.__name__} ({way})", story, clients
    for story in [rest_alone, lauf_events_tail, push_wakes_a_service, gcloud]:
        yield story.__name__, story, server


if __name__ == "__main__":
    sys.exit(tell_all(stories))
