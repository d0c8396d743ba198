"""Subscriptions: their life, settings and bounds; what they are without their topic; detaching."""

from google.api_core import exceptions
from google.protobuf import duration_pb2, field_mask_pb2

from world import expect, fails


def update(world, name, paths, **settings):
    asked = {"subscription": {"name": name, **settings}, "update_mask": field_mask_pb2.FieldMask(paths=paths)}
    return world.subscriber.update_subscription(request=asked)


def subscriptions_live_and_die(world):
    topic, name = world.pair(labels={"a": "b"}, ack_deadline_seconds=20)
    read = world.subscriber.get_subscription(subscription=name)
    expect("read", (read.name, read.topic, read.ack_deadline_seconds, dict(read.labels)), (name, topic, 20, {"a": "b"}))
    asked = {"name": name, "topic": topic}
    fails(exceptions.AlreadyExists, "twice", lambda: world.subscriber.create_subscription(request=asked))
    listed = world.subscriber.list_subscriptions(project=world.project)
    expect("listed", world.own(listed), [name])
    world.subscriber.delete_subscription(subscription=name)
    expect("after", world.own(world.subscriber.list_subscriptions(project=world.project)), [])


def a_subscription_that_is_not_there(world):
    name, subscriber = world.name("subscriptions"), world.subscriber
    calls = {
        "get": lambda: subscriber.get_subscription(subscription=name),
        "delete": lambda: subscriber.delete_subscription(subscription=name),
        "pull": lambda: subscriber.pull(subscription=name, max_messages=1),
        "ack": lambda: subscriber.acknowledge(subscription=name, ack_ids=["x"]),
        "lease": lambda: subscriber.modify_ack_deadline(subscription=name, ack_ids=["x"], ack_deadline_seconds=10),
        "push": lambda: subscriber.modify_push_config(subscription=name, push_config={}),
        "update": lambda: update(world, name, ["ack_deadline_seconds"], ack_deadline_seconds=20),
        "seek": lambda: subscriber.seek(request={"subscription": name, "snapshot": world.name("snapshots")}),
        "snapshot": lambda: subscriber.create_snapshot(name=world.name("snapshots"), subscription=name),
    }
    for what, call in calls.items():
        fails(exceptions.NotFound, what, call)


def detaching_what_is_not_there(world):
    name = world.name("subscriptions")
    fails(exceptions.NotFound, "detach", lambda: world.publisher.detach_subscription(request={"subscription": name}))


def a_subscription_says_its_defaults(world):
    _, name = world.pair()
    read = world.subscriber.get_subscription(subscription=name)
    expect("ack deadline", read.ack_deadline_seconds, 10)
    expect("retention", read.message_retention_duration.total_seconds(), 7 * 86400)
    expect("order, once, kept", (read.enable_message_ordering, read.enable_exactly_once_delivery, read.retain_acked_messages), (False,) * 3)


def a_subscription_says_its_state(world):
    _, name = world.pair()
    expect("state", world.subscriber.get_subscription(subscription=name).state.name, "ACTIVE")


def a_subscription_expires_in_31_days_by_default(world):
    _, name = world.pair()
    read = world.subscriber.get_subscription(subscription=name)
    expect("expires after", read.expiration_policy.ttl.total_seconds(), 31 * 86400)


def subscription_names_have_rules(world):
    topic = world.topic()
    for name in ["ab", "1abc", "goog-x", "a" * 256, "a b"]:
        asked = {"name": f"{world.project}/subscriptions/{name}", "topic": topic}
        fails(
            exceptions.InvalidArgument, f"{name[:12]!r}",
            lambda asked=asked: world.subscriber.create_subscription(request=asked),
        )


def ack_deadlines_have_bounds(world):
    topic = world.topic()
    for seconds in [-1, 601]:
        fails(
            exceptions.InvalidArgument, f"{seconds} s",
            lambda seconds=seconds: world.subscription(topic, ack_deadline_seconds=seconds),
        )
    for seconds in [10, 600]:
        name = world.subscription(topic, ack_deadline_seconds=seconds)
        expect("deadline", world.subscriber.get_subscription(subscription=name).ack_deadline_seconds, seconds)
    fails(exceptions.InvalidArgument, "updated to 601 s", lambda: update(world, name, ["ack_deadline_seconds"], ack_deadline_seconds=601))


def an_ack_deadline_is_ten_seconds_or_more(world):
    topic = world.topic()
    fails(exceptions.InvalidArgument, "9 s", lambda: world.subscription(topic, ack_deadline_seconds=9))


def retention_has_bounds(world):
    topic = world.topic()
    for seconds in [599, 31 * 86400 + 1]:
        length = duration_pb2.Duration(seconds=seconds)
        fails(
            exceptions.InvalidArgument, f"{seconds} s",
            lambda length=length: world.subscription(topic, message_retention_duration=length),
        )
    world.subscription(topic, message_retention_duration=duration_pb2.Duration(seconds=600))


def expiration_is_a_day_or_more(world):
    topic = world.topic()
    short = {"ttl": duration_pb2.Duration(seconds=86399)}
    fails(exceptions.InvalidArgument, "less than a day", lambda: world.subscription(topic, expiration_policy=short))


def subscriptions_come_in_pages(world):
    topic = world.topic()
    names = sorted(world.subscription(topic) for _ in range(5))
    listed = sum(world.pages(world.subscriber.list_subscriptions, 2), [])
    expect("each once", sorted(name for name in listed if name in names), names)


def only_what_the_mask_names_changes(world):
    _, name = world.pair(labels={"a": "b"}, ack_deadline_seconds=20)
    changed = update(world, name, ["ack_deadline_seconds"], ack_deadline_seconds=30, labels={"x": "y"})
    expect("changed", (changed.ack_deadline_seconds, dict(changed.labels)), (30, {"a": "b"}))
    policy = {"minimum_backoff": duration_pb2.Duration(seconds=5), "maximum_backoff": duration_pb2.Duration(seconds=9)}
    changed = update(world, name, ["retry_policy"], retry_policy=policy)
    expect("retry", changed.retry_policy.minimum_backoff.total_seconds(), 5)
    read = world.subscriber.get_subscription(subscription=name)
    expect("read", (read.ack_deadline_seconds, dict(read.labels)), (30, {"a": "b"}))


def subscription_labels_are_updated(world):
    _, name = world.pair(labels={"a": "b"})
    expect("changed", dict(update(world, name, ["labels"], labels={"x": "y"}).labels), {"x": "y"})
    expect("read", dict(world.subscriber.get_subscription(subscription=name).labels), {"x": "y"})


def an_update_needs_a_mask_of_fields_that_change(world):
    topic, name = world.pair()
    fails(exceptions.InvalidArgument, "no mask", lambda: update(world, name, []))
    fails(exceptions.InvalidArgument, "no such field", lambda: update(world, name, ["colour"]))
    fails(exceptions.InvalidArgument, "topic", lambda: update(world, name, ["topic"], topic=topic))
    fails(exceptions.InvalidArgument, "order", lambda: update(world, name, ["enable_message_ordering"], enable_message_ordering=True))


def a_filter_stays(world):
    _, name = world.pair(filter="attributes:a")
    fails(exceptions.InvalidArgument, "filter", lambda: update(world, name, ["filter"], filter="attributes:b"))


def a_subscription_outlives_its_topic(world):
    topic, name = world.pair()
    world.publish(topic, b"before")
    world.publisher.delete_topic(topic=topic)
    expect("topic", world.subscriber.get_subscription(subscription=name).topic, "_deleted-topic_")
    expect("what was there", world.take(name), [b"before"])
    world.publisher.create_topic(name=topic)
    world.publish(topic, b"after")
    world.nothing(name)
    expect("of the new topic", list(world.publisher.list_topic_subscriptions(topic=topic)), [])


def a_detached_subscription_has_no_messages(world):
    topic, name = world.pair()
    world.publish(topic, b"x")
    world.publisher.detach_subscription(request={"subscription": name})
    read = world.subscriber.get_subscription(subscription=name)
    expect("detached", read.detached, True)
    fails(exceptions.FailedPrecondition, "pull", lambda: world.subscriber.pull(subscription=name, max_messages=1))
    world.publish(topic, b"y")
    expect("of the topic", list(world.publisher.list_topic_subscriptions(topic=topic)), [])
    world.subscriber.delete_subscription(subscription=name)


def retry_policies_have_bounds(world):
    topic = world.topic()

    def policy(low, high):
        return {"minimum_backoff": duration_pb2.Duration(seconds=low), "maximum_backoff": duration_pb2.Duration(seconds=high)}

    for low, high in [(0, 601), (601, 601), (20, 10)]:
        fails(
            exceptions.InvalidArgument, f"{low} to {high} s",
            lambda low=low, high=high: world.subscription(topic, retry_policy=policy(low, high)),
        )
    name = world.subscription(topic, retry_policy={})
    read = world.subscriber.get_subscription(subscription=name).retry_policy
    expect("defaults", (read.minimum_backoff.total_seconds(), read.maximum_backoff.total_seconds()), (10, 600))


def dead_letter_policies_have_bounds(world):
    topic, dead = world.topic(), world.topic()
    for attempts in [4, 101]:
        policy = {"dead_letter_topic": dead, "max_delivery_attempts": attempts}
        fails(
            exceptions.InvalidArgument, f"{attempts} attempts",
            lambda policy=policy: world.subscription(topic, dead_letter_policy=policy),
        )


def dead_letters_have_five_attempts_by_default(world):
    topic, dead = world.topic(), world.topic()
    name = world.subscription(topic, dead_letter_policy={"dead_letter_topic": dead})
    read = world.subscriber.get_subscription(subscription=name).dead_letter_policy
    expect("default", (read.dead_letter_topic, read.max_delivery_attempts), (dead, 5))


def a_dead_letter_topic_is_there(world):
    topic, missing = world.topic(), world.name("topics")
    policy = {"dead_letter_topic": missing, "max_delivery_attempts": 5}
    fails(exceptions.NotFound, "no such topic", lambda: world.subscription(topic, dead_letter_policy=policy))


def policies_are_taken_away_by_a_mask(world):
    topic, dead = world.topic(), world.topic()
    name = world.subscription(topic, dead_letter_policy={"dead_letter_topic": dead}, retry_policy={})
    update(world, name, ["dead_letter_policy", "retry_policy"])
    read = world.subscriber.get_subscription(subscription=name)
    expect("policies", ("dead_letter_policy" in read, "retry_policy" in read), (False, False))


STORIES = [
    subscriptions_live_and_die,
    a_subscription_that_is_not_there,
    detaching_what_is_not_there,
    a_subscription_says_its_defaults,
    a_subscription_says_its_state,
    a_subscription_expires_in_31_days_by_default,
    subscription_names_have_rules,
    ack_deadlines_have_bounds,
    an_ack_deadline_is_ten_seconds_or_more,
    retention_has_bounds,
    expiration_is_a_day_or_more,
    subscriptions_come_in_pages,
    only_what_the_mask_names_changes,
    subscription_labels_are_updated,
    an_update_needs_a_mask_of_fields_that_change,
    a_filter_stays,
    a_subscription_outlives_its_topic,
    a_detached_subscription_has_no_messages,
    retry_policies_have_bounds,
    dead_letter_policies_have_bounds,
    dead_letters_have_five_attempts_by_default,
    a_dead_letter_topic_is_there,
    policies_are_taken_away_by_a_mask,
]
