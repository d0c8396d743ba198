"""Synchronous pull: acknowledgement, leases, filters, retry policies and dead letters."""

from google.api_core import exceptions
from google.protobuf import duration_pb2

from world import expect, fails


def pulled_messages_are_acknowledged(world):
    topic, subscription = world.pair()
    world.publish(topic, b"a", b"b", b"c")
    got = world.pull(subscription, 3)
    expect("data", sorted(m.message.data for m in got), [b"a", b"b", b"c"])
    expect("attempts without a policy", [m.delivery_attempt for m in got], [0, 0, 0])
    world.nothing(subscription)
    world.ack(subscription, got)
    # Without exactly-once delivery, an acknowledgement may be told again.
    world.ack(subscription, got)
    world.nothing(subscription)


def a_pull_gives_no_more_than_asked(world):
    topic, subscription = world.pair()
    world.publish(topic, *[b"x"] * 5)
    answer = world.subscriber.pull(subscription=subscription, max_messages=2)
    expect("two at most", len(answer.received_messages) in (1, 2), True)


def a_pull_asks_for_something(world):
    _, subscription = world.pair()
    asked = {"subscription": subscription, "return_immediately": True}
    for most in [0, -1]:
        fails(
            exceptions.InvalidArgument, f"{most} messages",
            lambda most=most: world.subscriber.pull(request={**asked, "max_messages": most}),
        )


def what_is_given_back_comes_again(world):
    topic, subscription = world.pair()
    [wanted] = world.publish(topic, b"again")
    got = world.pull(subscription)
    world.nack(subscription, got)
    got = world.pull(subscription)
    expect("id", got[0].message.message_id, wanted)
    world.ack(subscription, got)
    world.nothing(subscription)


def a_lease_that_ends_gives_the_message_to_another(world):
    topic, subscription = world.pair(ack_deadline_seconds=10)
    world.publish(topic, b"x")
    first = world.pull(subscription)
    second = world.pull(subscription)
    expect("the same", first[0].message.message_id, second[0].message.message_id)
    expect("another delivery", first[0].ack_id != second[0].ack_id, True)
    world.ack(subscription, second)
    world.nothing(subscription)


def a_longer_lease_keeps_the_message(world):
    topic, subscription = world.pair(ack_deadline_seconds=10)
    world.publish(topic, b"kept")
    kept = world.pull(subscription)
    world.lease(subscription, kept, 600)
    world.publish(topic, b"left")
    world.pull(subscription)
    # Had the first lease not been made longer, it would have ended before this one.
    expect("again", world.take(subscription), [b"left"])
    world.nothing(subscription)
    world.ack(subscription, kept)


def leases_have_bounds(world):
    topic, subscription = world.pair()
    world.publish(topic, b"x")
    got = world.pull(subscription)
    fails(exceptions.InvalidArgument, "-1 s", lambda: world.lease(subscription, got, -1))
    world.lease(subscription, got, 600)
    world.ack(subscription, got)


def a_lease_is_600_seconds_or_less(world):
    topic, subscription = world.pair()
    world.publish(topic, b"x")
    got = world.pull(subscription)
    fails(exceptions.InvalidArgument, "601 s", lambda: world.lease(subscription, got, 601))


def an_ack_id_that_was_never_given_is_refused(world):
    _, subscription = world.pair()
    subscriber = world.subscriber
    fails(exceptions.InvalidArgument, "ack", lambda: subscriber.acknowledge(subscription=subscription, ack_ids=["never"]))
    fails(
        exceptions.InvalidArgument, "lease",
        lambda: subscriber.modify_ack_deadline(subscription=subscription, ack_ids=["never"], ack_deadline_seconds=20),
    )


def acknowledging_nothing_is_refused(world):
    _, subscription = world.pair()
    fails(exceptions.InvalidArgument, "no ids", lambda: world.subscriber.acknowledge(subscription=subscription, ack_ids=[]))


def filters_select(world):
    topic = world.topic()
    a, b, both, none = {"a": "1"}, {"b": "2"}, {"a": "1", "b": "2"}, {}
    messages = {b"a": a, b"b": b, b"both": both, b"none": none}
    wanted = {
        "attributes:a": [b"a", b"both"],
        'attributes.a = "1"': [b"a", b"both"],
        'attributes.a != "1"': [b"b", b"none"],
        "NOT attributes:a": [b"b", b"none"],
        "-attributes:a": [b"b", b"none"],
        "attributes:a AND attributes:b": [b"both"],
        "attributes:a OR attributes:b": [b"a", b"b", b"both"],
        "(attributes:a OR attributes:b) AND NOT attributes.b = \"2\"": [b"a"],
        'hasPrefix(attributes.b, "2")': [b"b", b"both"],
    }
    subscriptions = {text: world.subscription(topic, filter=text) for text in wanted}
    world.publish(topic, *({"data": data, "attributes": has} for data, has in messages.items()))
    for text, data in wanted.items():
        expect(text, sorted(world.take(subscriptions[text], len(data))), data)
        world.nothing(subscriptions[text])


def filters_that_mean_nothing_are_refused(world):
    topic = world.topic()
    for text in ["colour = 1", "attributes:", 'attributes.a > "1"', "attributes:a AND", 'data = "x"', "attributes:a OR attributes:b AND attributes:c"]:
        fails(exceptions.InvalidArgument, text, lambda text=text: world.subscription(topic, filter=text))


def filters_are_no_longer_than_256_bytes(world):
    topic = world.topic()
    shortest = 'attributes.a = ""'
    world.subscription(topic, filter=f'attributes.a = "{"x" * (256 - len(shortest))}"')
    fails(
        exceptions.InvalidArgument, "257 bytes",
        lambda: world.subscription(topic, filter=f'attributes.a = "{"x" * (257 - len(shortest))}"'),
    )


def poison_goes_to_the_dead_letters(world):
    topic, dead = world.topic(), world.topic()
    policy = {"dead_letter_topic": dead, "max_delivery_attempts": 5}
    subscription, grave = world.subscription(topic, dead_letter_policy=policy), world.subscription(dead)
    world.publish(topic, {"data": b"poison", "attributes": {"k": "v"}})
    attempts = []
    for _ in range(5):
        got = world.pull(subscription)
        attempts.append(got[0].delivery_attempt)
        world.nack(subscription, got)
    expect("attempts", attempts, [1, 2, 3, 4, 5])
    world.nothing(subscription)
    buried = world.pull(grave, what="dead letters")[0].message
    expect("data", (buried.data, buried.attributes["k"]), (b"poison", "v"))
    expect("from", buried.attributes["CloudPubSubDeadLetterSourceSubscription"], subscription.split("/")[-1])
    expect("after", buried.attributes["CloudPubSubDeadLetterSourceDeliveryCount"], "5")
    expect("of", f"projects/{buried.attributes['CloudPubSubDeadLetterSourceSubscriptionProject']}", world.project)


def a_retry_policy_holds_back_what_is_given_back(world):
    slow = {"minimum_backoff": duration_pb2.Duration(seconds=600), "maximum_backoff": duration_pb2.Duration(seconds=600)}
    topic, subscription = world.pair(retry_policy=slow)
    world.publish(topic, b"first")
    world.nack(subscription, world.pull(subscription))
    world.publish(topic, b"second")
    expect("next", world.take(subscription), [b"second"])
    world.nothing(subscription)


def a_short_retry_policy_brings_it_again(world):
    quick = {"minimum_backoff": duration_pb2.Duration(seconds=1), "maximum_backoff": duration_pb2.Duration(seconds=1)}
    topic, subscription = world.pair(retry_policy=quick)
    world.publish(topic, b"x")
    world.nack(subscription, world.pull(subscription))
    expect("again", world.take(subscription), [b"x"])


STORIES = [
    pulled_messages_are_acknowledged,
    a_pull_gives_no_more_than_asked,
    a_pull_asks_for_something,
    what_is_given_back_comes_again,
    a_lease_that_ends_gives_the_message_to_another,
    a_longer_lease_keeps_the_message,
    leases_have_bounds,
    a_lease_is_600_seconds_or_less,
    an_ack_id_that_was_never_given_is_refused,
    acknowledging_nothing_is_refused,
    filters_select,
    filters_that_mean_nothing_are_refused,
    filters_are_no_longer_than_256_bytes,
    poison_goes_to_the_dead_letters,
    a_retry_policy_holds_back_what_is_given_back,
    a_short_retry_policy_brings_it_again,
]
