"""Streaming pull: the client's own subscriber, and requests that it would not send."""

import itertools
import threading

from google.api_core import exceptions
from google.cloud import pubsub_v1
from google.cloud.pubsub_v1.subscriber import exceptions as subscriber_exceptions
from google.pubsub_v1 import SubscriberClient
from google.pubsub_v1.types import StreamingPullRequest

from world import WAIT, expect, fails, wait_for


def a_stream_gives_messages_and_takes_acknowledgements(world):
    topic, subscription = world.pair()
    wanted = set(world.publish(topic, *[f"m{n}".encode() for n in range(300)]))
    seen, done = set(), threading.Event()

    def receive(message):
        seen.add(message.message_id)
        message.ack()
        if seen == wanted:
            done.set()

    stream = world.subscriber.subscribe(subscription, receive)
    came = done.wait(WAIT)
    stream.cancel()
    stream.result(WAIT)
    expect("messages", (len(seen), came), (300, True))
    world.nothing(subscription)


def what_a_stream_gives_back_comes_again(world):
    topic, subscription = world.pair()
    world.publish(topic, b"x")
    times, done = [], threading.Event()

    def receive(message):
        times.append(message.message_id)
        if len(times) < 3:
            message.nack()
        else:
            message.ack()
            done.set()

    stream = world.subscriber.subscribe(subscription, receive)
    came = done.wait(WAIT)
    stream.cancel()
    stream.result(WAIT)
    expect("three times", (came, len(set(times))), (True, 1))


def a_stream_keeps_what_its_user_holds(world):
    topic, subscription = world.pair(ack_deadline_seconds=10)
    world.publish(topic, b"held")
    seen, release = [], threading.Event()

    def receive(message):
        seen.append(message.data)
        if message.data == b"held":
            release.wait(WAIT)
        message.ack()

    stream = world.subscriber.subscribe(subscription, receive)
    wait_for("the message", lambda: seen == [b"held"])
    # A lease of 10 s that nobody makes longer ends in the meantime, and tells when.
    clock, other = world.pair(ack_deadline_seconds=10)
    world.publish(clock, b"x")
    world.pull(other)
    world.pull(other)
    expect("seen", seen, [b"held"])
    release.set()
    stream.cancel()
    stream.result(WAIT)
    world.nothing(subscription)


def flow_control_holds_back(world):
    topic, subscription = world.pair()
    world.publish(topic, *[b"x"] * 20)
    lock, state = threading.Lock(), {"now": 0, "most": 0, "done": 0}

    def receive(message):
        with lock:
            state["now"] += 1
            state["most"] = max(state["most"], state["now"])
        threading.Event().wait(0.02)
        with lock:
            state["now"] -= 1
            state["done"] += 1
        message.ack()

    flow = pubsub_v1.types.FlowControl(max_messages=3)
    stream = world.subscriber.subscribe(subscription, receive, flow_control=flow)
    wait_for("20 messages", lambda: state["done"] >= 20)
    stream.cancel()
    stream.result(WAIT)
    expect("three at a time", state["most"] <= 3, True)


def raw(world, *requests):
    """A stream of the plain API, and its end: the user's to cancel."""
    end = threading.Event()

    def asked():
        yield from requests
        end.wait(WAIT)

    return SubscriberClient.streaming_pull(world.subscriber, requests=asked(), timeout=WAIT), end


def a_stream_holds_no_more_than_its_client_allows(world):
    topic, subscription = world.pair()
    world.publish(topic, *[b"x"] * 10)
    first = StreamingPullRequest(subscription=subscription, stream_ack_deadline_seconds=60, max_outstanding_messages=4)
    stream, end = raw(world, first)
    held = 0
    while held < 4:
        held += len(next(stream).received_messages)
    expect("held", held, 4)
    # The others are nobody's: a pull gets them.
    world.ack(subscription, world.pull(subscription, 6))
    stream.cancel()
    end.set()


def a_stream_begins_with_its_subscription_and_lease(world):
    _, subscription = world.pair()
    wrong = {
        "no subscription": StreamingPullRequest(stream_ack_deadline_seconds=10),
        "a lease of 9 s": StreamingPullRequest(subscription=subscription, stream_ack_deadline_seconds=9),
        "a lease of 601 s": StreamingPullRequest(subscription=subscription, stream_ack_deadline_seconds=601),
        "no lease": StreamingPullRequest(subscription=subscription),
    }
    for what, request in wrong.items():
        stream, end = raw(world, request)
        fails(exceptions.InvalidArgument, what, lambda stream=stream: next(stream))
        end.set()


def a_stream_says_each_lease_with_its_length(world):
    _, subscription = world.pair()
    first = StreamingPullRequest(subscription=subscription, stream_ack_deadline_seconds=10)
    odd = StreamingPullRequest(modify_deadline_ack_ids=["x", "y"], modify_deadline_seconds=[10])
    stream, end = raw(world, first, odd)
    fails(exceptions.InvalidArgument, "two ids and one length", lambda: next(stream))
    end.set()


def a_lease_that_ends_under_exactly_once_refuses_its_acknowledgement(world):
    topic, subscription = world.pair(enable_exactly_once_delivery=True, ack_deadline_seconds=10)
    world.publish(topic, b"x")
    ended = world.pull(subscription)
    fresh = world.pull(subscription)
    fails(exceptions.InvalidArgument, "ack", lambda: world.ack(subscription, ended))
    fails(exceptions.InvalidArgument, "lease", lambda: world.lease(subscription, ended, 20))
    world.ack(subscription, fresh)
    world.nothing(subscription)


def a_stream_of_no_subscription(world):
    missing = world.name("subscriptions")
    stream = world.subscriber.subscribe(missing, lambda message: message.ack())
    fails(exceptions.NotFound, "subscribe", lambda: stream.result(WAIT))


def a_stream_ends_when_its_subscription_is_deleted(world):
    topic, subscription = world.pair()
    seen = []

    def receive(message):
        message.ack()
        seen.append(message.data)

    stream = world.subscriber.subscribe(subscription, receive)
    world.publish(topic, b"x")
    wait_for("a message", lambda: seen)
    world.subscriber.delete_subscription(subscription=subscription)
    fails(exceptions.NotFound, "stream", lambda: stream.result(WAIT))


def exactly_once_answers_acknowledgements(world):
    topic, subscription = world.pair(enable_exactly_once_delivery=True)
    world.publish(topic, b"x")
    answers, done = [], threading.Event()

    def receive(message):
        answers.append(message.ack_with_response().result(WAIT).name)
        done.set()

    stream = world.subscriber.subscribe(subscription, receive)
    done.wait(WAIT)
    stream.cancel()
    stream.result(WAIT)
    expect("answers", answers, ["SUCCESS"])
    world.nothing(subscription)


def exactly_once_gives_back_with_an_answer(world):
    topic, subscription = world.pair(enable_exactly_once_delivery=True)
    world.publish(topic, b"x")
    given, answers = itertools.count(), []

    # The message may be back, in another thread, before the one that gave it back has its answer.
    def receive(message):
        answer = message.nack_with_response() if next(given) == 0 else message.ack_with_response()
        answers.append(answer.result(WAIT).name)

    stream = world.subscriber.subscribe(subscription, receive)
    wait_for("two answers", lambda: len(answers) >= 2)
    stream.cancel()
    stream.result(WAIT)
    expect("answers", answers, ["SUCCESS", "SUCCESS"])


def exactly_once_refuses_an_acknowledgement_that_is_too_late(world):
    topic, subscription = world.pair(enable_exactly_once_delivery=True)
    world.publish(topic, b"x")
    stale = world.pull(subscription)
    world.nack(subscription, stale)
    fresh = world.pull(subscription)
    refused = fails(exceptions.InvalidArgument, "stale", lambda: world.ack(subscription, stale))
    [detail] = [d for d in refused.details if hasattr(d, "metadata")]
    expect("why", dict(detail.metadata), {stale[0].ack_id: "PERMANENT_FAILURE_INVALID_ACK_ID"})
    world.ack(subscription, fresh)
    world.nothing(subscription)


def exactly_once_tells_the_client_of_a_stale_acknowledgement(world):
    topic, subscription = world.pair(enable_exactly_once_delivery=True)
    world.publish(topic, b"x")
    answers, done = [], threading.Event()

    def receive(message):
        message.ack_with_response().result(WAIT)
        try:
            message.ack_with_response().result(WAIT)
            answers.append("SUCCESS")
        except subscriber_exceptions.AcknowledgeError as error:
            answers.append(error.error_code.name)
        done.set()

    stream = world.subscriber.subscribe(subscription, receive)
    done.wait(WAIT)
    stream.cancel()
    stream.result(WAIT)
    expect("second answer", answers, ["INVALID_ACK_ID"])


STORIES = [
    a_stream_gives_messages_and_takes_acknowledgements,
    what_a_stream_gives_back_comes_again,
    a_stream_keeps_what_its_user_holds,
    flow_control_holds_back,
    a_stream_holds_no_more_than_its_client_allows,
    a_lease_that_ends_under_exactly_once_refuses_its_acknowledgement,
    a_stream_begins_with_its_subscription_and_lease,
    a_stream_says_each_lease_with_its_length,
    a_stream_of_no_subscription,
    a_stream_ends_when_its_subscription_is_deleted,
    exactly_once_answers_acknowledgements,
    exactly_once_gives_back_with_an_answer,
    exactly_once_refuses_an_acknowledgement_that_is_too_late,
    exactly_once_tells_the_client_of_a_stale_acknowledgement,
]
