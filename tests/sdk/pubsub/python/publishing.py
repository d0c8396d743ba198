"""Publishing: what a message may be, and the client's batches."""

from google.api_core import exceptions
from google.cloud import pubsub_v1

from world import WAIT, expect, fails

MOST = 10_000_000


def a_message_arrives_as_it_was_sent(world):
    topic, subscription = world.pair()
    ids = world.publish(topic, {"data": b"\x00\xffdata", "attributes": {"k": "v", "é": "ü"}}, {"attributes": {"only": "attributes"}})
    got = [m.message for m in world.pull(subscription, 2)]
    by_id = {m.message_id: m for m in got}
    expect("ids", set(by_id), set(ids))
    first, second = by_id[ids[0]], by_id[ids[1]]
    expect("first", (first.data, dict(first.attributes)), (b"\x00\xffdata", {"k": "v", "é": "ü"}))
    expect("second", (second.data, dict(second.attributes)), (b"", {"only": "attributes"}))
    expect("a time", first.publish_time.timestamp() > 0, True)


def the_client_sends_batches(world):
    topic, subscription = world.pair()
    publisher = pubsub_v1.PublisherClient(batch_settings=pubsub_v1.types.BatchSettings(max_messages=50, max_latency=0.05))
    futures = [publisher.publish(topic, f"m{n}".encode(), n=str(n)) for n in range(500)]
    ids = {future.result(WAIT) for future in futures}
    expect("ids", len(ids), 500)
    got = []
    while len(got) < 500:
        batch = world.pull(subscription, 1) + list(
            world.subscriber.pull(request={"subscription": subscription, "max_messages": 500, "return_immediately": True}).received_messages
        )
        world.ack(subscription, batch)
        got.extend(batch)
    expect("ids that came", {m.message.message_id for m in got}, ids)
    expect("data", {m.message.data for m in got}, {f"m{n}".encode() for n in range(500)})


def every_subscription_gets_every_message(world):
    topic = world.topic()
    subscriptions = [world.subscription(topic) for _ in range(3)]
    world.publish(topic, b"a", b"b")
    late = world.subscription(topic)
    for subscription in subscriptions:
        expect("messages", sorted(world.take(subscription, 2)), [b"a", b"b"])
    world.nothing(late)


def an_empty_message_is_refused(world):
    topic = world.topic()
    fails(exceptions.InvalidArgument, "empty", lambda: world.publish(topic, {}))
    fails(exceptions.InvalidArgument, "one of two", lambda: world.publish(topic, b"x", {}))


def an_empty_message_with_a_key_is_refused(world):
    topic = world.topic()
    fails(exceptions.InvalidArgument, "a key alone", lambda: world.publish(topic, {"ordering_key": "k"}))


def no_messages_are_refused(world):
    topic = world.topic()
    fails(exceptions.InvalidArgument, "none", lambda: world.publish(topic))


def the_largest_message_is_taken(world):
    topic = world.topic()
    expect("ids", len(world.publish(topic, b"x" * MOST)), 1)


def a_byte_more_is_refused(world):
    topic = world.topic()
    fails(exceptions.InvalidArgument, "10,000,001 bytes", lambda: world.publish(topic, b"x" * (MOST + 1)))


def messages_of_one_request_are_no_larger_together(world):
    topic = world.topic()
    fails(exceptions.InvalidArgument, "10.2 MB", lambda: world.publish(topic, *[b"x" * 3_400_000] * 3))


def a_thousand_messages_at_once_are_taken(world):
    topic = world.topic()
    expect("ids", len(set(world.publish(topic, *[b"x"] * 1000))), 1000)


def one_message_more_is_refused(world):
    topic = world.topic()
    fails(exceptions.InvalidArgument, "1001 messages", lambda: world.publish(topic, *[b"x"] * 1001))


def attributes_at_their_limits_are_taken(world):
    topic, subscription = world.pair()
    many = {f"k{n}": "v" for n in range(100)}
    long = {"k" * 256: "v" * 1024, "empty": ""}
    world.publish(topic, {"attributes": many})
    expect("many", dict(world.pull(subscription)[0].message.attributes), many)
    subscription = world.subscription(topic)
    world.publish(topic, {"attributes": long})
    expect("long", dict(world.pull(subscription)[0].message.attributes), long)


def attributes_over_their_limits_are_refused(world):
    topic = world.topic()
    wrong = {
        "101 attributes": {f"k{n}": "v" for n in range(101)},
        "a key of 257 bytes": {"k" * 257: "v"},
        "a value of 1025 bytes": {"k": "v" * 1025},
        "a key of 129 letters of two bytes": {"é" * 129: "v"},
    }
    for what, attributes in wrong.items():
        fails(
            exceptions.InvalidArgument, what,
            lambda attributes=attributes: world.publish(topic, {"data": b"x", "attributes": attributes}),
        )


def attribute_keys_are_not_empty_nor_googs(world):
    topic = world.topic()
    for key in ["", "goog", "googclient_x"]:
        fails(
            exceptions.InvalidArgument, f"the key {key!r}",
            lambda key=key: world.publish(topic, {"data": b"x", "attributes": {key: "v"}}),
        )


def ordering_keys_have_a_limit(world):
    topic = world.topic()
    world.publish(topic, {"data": b"x", "ordering_key": "k" * 1024})
    fails(exceptions.InvalidArgument, "1025 bytes", lambda: world.publish(topic, {"data": b"x", "ordering_key": "k" * 1025}))


STORIES = [
    a_message_arrives_as_it_was_sent,
    the_client_sends_batches,
    every_subscription_gets_every_message,
    an_empty_message_is_refused,
    an_empty_message_with_a_key_is_refused,
    no_messages_are_refused,
    the_largest_message_is_taken,
    a_byte_more_is_refused,
    messages_of_one_request_are_no_larger_together,
    a_thousand_messages_at_once_are_taken,
    one_message_more_is_refused,
    attributes_at_their_limits_are_taken,
    attributes_over_their_limits_are_refused,
    attribute_keys_are_not_empty_nor_googs,
    ordering_keys_have_a_limit,
]
