"""Ordering keys: the order kept, what a redelivery does to it, and a client that stops and resumes."""

import collections
import threading

from google.api_core import exceptions
from google.cloud import pubsub_v1
from google.cloud.pubsub_v1.publisher import exceptions as publisher_exceptions

from world import WAIT, Failed, expect, fails

ORDERED = pubsub_v1.types.PublisherOptions(enable_message_ordering=True)


def messages_of_a_key_come_in_order(world):
    topic, subscription = world.pair(enable_message_ordering=True)
    publisher = pubsub_v1.PublisherClient(publisher_options=ORDERED)
    futures = [publisher.publish(topic, str(n).encode(), ordering_key=f"key-{n % 4}") for n in range(200)]
    for future in futures:
        future.result(WAIT)
    seen, done = collections.defaultdict(list), threading.Event()

    def receive(message):
        seen[message.ordering_key].append(int(message.data))
        message.ack()
        if sum(map(len, seen.values())) == 200:
            done.set()

    stream = world.subscriber.subscribe(subscription, receive)
    done.wait(WAIT)
    stream.cancel()
    stream.result(WAIT)
    expect("order", dict(seen), {f"key-{k}": list(range(k, 200, 4)) for k in range(4)})


def what_is_given_back_comes_before_what_follows_it(world):
    topic, subscription = world.pair(enable_message_ordering=True)
    world.publish(topic, *({"data": str(n).encode(), "ordering_key": "k"} for n in range(10)))
    seen, given_back, done = [], [], threading.Event()

    def receive(message):
        number = int(message.data)
        if number == 3 and not given_back:
            given_back.append(number)
            message.nack()
            return
        seen.append(number)
        message.ack()
        if number == 9 and 3 in seen:
            done.set()

    stream = world.subscriber.subscribe(subscription, receive)
    if not done.wait(WAIT):
        raise Failed(f"only {seen} came")
    stream.cancel()
    stream.result(WAIT)
    # Those after it may have been on their way; but then they come again.
    again = seen.index(3)
    expect("from then on", seen[again : again + 7], list(range(3, 10)))
    expect("before", seen[:3], [0, 1, 2])


def what_was_pulled_and_given_back_comes_again_in_order(world):
    topic, subscription = world.pair(enable_message_ordering=True)
    world.publish(topic, *({"data": str(n).encode(), "ordering_key": "k"} for n in range(5)))
    world.nack(subscription, world.pull(subscription))
    seen = []
    while len(seen) < 5:
        got = world.pull(subscription)
        seen.extend(int(m.message.data) for m in got)
        world.ack(subscription, got)
    expect("order", seen, list(range(5)))


def without_order_asked_keys_are_only_kept(world):
    topic, subscription = world.pair()
    world.publish(topic, {"data": b"x", "ordering_key": "k"})
    expect("key", world.pull(subscription)[0].message.ordering_key, "k")


def one_key_does_not_hold_up_another(world):
    topic, subscription = world.pair(enable_message_ordering=True)
    world.publish(topic, {"data": b"a1", "ordering_key": "a"}, {"data": b"a2", "ordering_key": "a"})
    held = world.pull(subscription)
    expect("first", held[0].message.data, b"a1")
    world.publish(topic, {"data": b"b1", "ordering_key": "b"})
    others = {m.message.data for m in world.pull(subscription)}
    expect("meanwhile", others <= {b"b1", b"a2"}, True)


def a_key_that_failed_is_paused_until_resumed(world):
    topic = world.name("topics")
    publisher = pubsub_v1.PublisherClient(publisher_options=ORDERED)
    fails(exceptions.NotFound, "no topic", lambda: publisher.publish(topic, b"1", ordering_key="k").result(WAIT))
    world.publisher.create_topic(name=topic)
    subscription = world.subscription(topic, enable_message_ordering=True)
    try:
        publisher.publish(topic, b"2", ordering_key="k").result(WAIT)
        raise Failed("a paused key published")
    except publisher_exceptions.PublishToPausedOrderingKeyException:
        pass
    publisher.publish(topic, b"other", ordering_key="other").result(WAIT)
    publisher.resume_publish(topic, "k")
    publisher.publish(topic, b"3", ordering_key="k").result(WAIT)
    expect("messages", sorted(world.take(subscription, 2)), [b"3", b"other"])


STORIES = [
    messages_of_a_key_come_in_order,
    what_is_given_back_comes_before_what_follows_it,
    what_was_pulled_and_given_back_comes_again_in_order,
    without_order_asked_keys_are_only_kept,
    one_key_does_not_hold_up_another,
    a_key_that_failed_is_paused_until_resumed,
]
