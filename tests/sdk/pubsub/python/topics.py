"""Topics: their life, names, pages and settings."""

from google.api_core import exceptions
from google.protobuf import duration_pb2, field_mask_pb2

from world import expect, fails


def topics_live_and_die(world):
    name = world.name("topics")
    made = world.publisher.create_topic(request={"name": name, "labels": {"a": "b"}})
    expect("made", (made.name, dict(made.labels)), (name, {"a": "b"}))
    read = world.publisher.get_topic(topic=name)
    expect("read", (read.name, dict(read.labels)), (name, {"a": "b"}))
    expect("listed", world.own(world.publisher.list_topics(project=world.project)), [name])
    world.publisher.delete_topic(topic=name)
    expect("after deletion", world.own(world.publisher.list_topics(project=world.project)), [])


def a_topic_is_made_once(world):
    name = world.topic()
    fails(exceptions.AlreadyExists, "twice", lambda: world.publisher.create_topic(name=name))
    world.publisher.delete_topic(topic=name)
    world.publisher.create_topic(name=name)


def a_topic_that_is_not_there(world):
    name = world.name("topics")
    publisher = world.publisher
    fails(exceptions.NotFound, "get", lambda: publisher.get_topic(topic=name))
    fails(exceptions.NotFound, "delete", lambda: publisher.delete_topic(topic=name))
    fails(exceptions.NotFound, "publish", lambda: world.publish(name, b"x"))
    fails(exceptions.NotFound, "subscribe", lambda: world.subscription(name))


def what_hangs_on_no_topic_is_not_listed(world):
    name = world.name("topics")
    fails(exceptions.NotFound, "subscriptions", lambda: list(world.publisher.list_topic_subscriptions(topic=name)))
    fails(exceptions.NotFound, "snapshots", lambda: list(world.publisher.list_topic_snapshots(topic=name)))


def publishing_to_a_deleted_topic(world):
    topic, _ = world.pair()
    world.publish(topic, b"x")
    world.publisher.delete_topic(topic=topic)
    fails(exceptions.NotFound, "publish", lambda: world.publish(topic, b"x"))


def topic_names_have_rules(world):
    wrong = ["ab", "1abc", "goog-x", "a" * 256, "a/b", "a b", "-abc"]
    for name in wrong:
        fails(
            exceptions.InvalidArgument, f"{name[:12]!r}",
            lambda name=name: world.publisher.create_topic(name=f"{world.project}/topics/{name}"),
        )
    for name in [f"{world.mark:a<255}", f"{world.mark}.b~c+d%25_e-f", f"A{world.mark}"]:
        world.publisher.create_topic(name=f"{world.project}/topics/{name}")


def topics_come_in_pages(world):
    names = sorted(world.topic() for _ in range(5))
    listed = sum(world.pages(world.publisher.list_topics, 2), [])
    expect("each once", sorted(name for name in listed if name in names), names)
    asked = {"project": world.project, "page_size": 3}
    expect("by the client's own paging", sorted(world.own(world.publisher.list_topics(request=asked))), names)


def pages_are_asked_for_rightly(world):
    world.topic()
    for wrong in [{"page_size": -1}, {"page_token": "no token of ours"}]:
        asked = {"project": world.project, **wrong}
        fails(exceptions.InvalidArgument, f"{wrong}", lambda asked=asked: world.publisher.list_topics(request=asked))


def subscriptions_and_snapshots_of_a_topic_are_listed(world):
    topic = world.topic()
    other = world.topic()
    world.subscription(other)
    names = sorted(world.subscription(topic) for _ in range(3))
    snapshot = world.name("snapshots")
    world.subscriber.create_snapshot(name=snapshot, subscription=names[0])
    listed = world.publisher.list_topic_subscriptions(request={"topic": topic, "page_size": 2})
    expect("subscriptions", sorted(listed), names)
    expect("snapshots", list(world.publisher.list_topic_snapshots(topic=topic)), [snapshot])
    expect("none", list(world.publisher.list_topic_snapshots(topic=other)), [])


def topic_labels_are_updated(world):
    name = world.topic(labels={"a": "b"})

    def update(paths, **settings):
        asked = {"topic": {"name": name, **settings}, "update_mask": field_mask_pb2.FieldMask(paths=paths)}
        return world.publisher.update_topic(request=asked)

    expect("changed", dict(update(["labels"], labels={"c": "d"}).labels), {"c": "d"})
    expect("read", dict(world.publisher.get_topic(topic=name).labels), {"c": "d"})


def a_topic_update_needs_a_mask_of_fields_that_change(world):
    name = world.topic()
    for paths in [[], ["colour"], ["name"]]:
        asked = {"topic": {"name": name}, "update_mask": field_mask_pb2.FieldMask(paths=paths)}
        fails(exceptions.InvalidArgument, f"{paths}", lambda asked=asked: world.publisher.update_topic(request=asked))


def labels_have_rules(world):
    for labels in [{"Upper": "x"}, {"x": "Upper"}, {"": "x"}, {"k" * 64: "x"}, {"x": "v" * 64}]:
        fails(exceptions.InvalidArgument, f"{labels}"[:40], lambda labels=labels: world.topic(labels=labels))


def topic_retention_is_updated(world):
    name = world.topic(message_retention_duration=duration_pb2.Duration(seconds=3600))
    expect("made", world.publisher.get_topic(topic=name).message_retention_duration.total_seconds(), 3600)
    asked = {
        "topic": {"name": name, "message_retention_duration": duration_pb2.Duration(seconds=7200)},
        "update_mask": field_mask_pb2.FieldMask(paths=["message_retention_duration"]),
    }
    changed = world.publisher.update_topic(request=asked)
    expect("changed", changed.message_retention_duration.total_seconds(), 7200)


def topic_retention_has_bounds(world):
    for seconds in [599, 31 * 86400 + 1]:
        length = duration_pb2.Duration(seconds=seconds)
        fails(
            exceptions.InvalidArgument, f"{seconds} s", lambda length=length: world.topic(message_retention_duration=length)
        )
    for seconds in [600, 31 * 86400]:
        world.topic(message_retention_duration=duration_pb2.Duration(seconds=seconds))


def updating_a_topic_that_is_not_there(world):
    asked = {"topic": {"name": world.name("topics")}, "update_mask": field_mask_pb2.FieldMask(paths=["labels"])}
    fails(exceptions.NotFound, "update", lambda: world.publisher.update_topic(request=asked))


STORIES = [
    topics_live_and_die,
    a_topic_is_made_once,
    a_topic_that_is_not_there,
    what_hangs_on_no_topic_is_not_listed,
    publishing_to_a_deleted_topic,
    topic_names_have_rules,
    topics_come_in_pages,
    pages_are_asked_for_rightly,
    subscriptions_and_snapshots_of_a_topic_are_listed,
    topic_labels_are_updated,
    labels_have_rules,
    a_topic_update_needs_a_mask_of_fields_that_change,
    topic_retention_is_updated,
    topic_retention_has_bounds,
    updating_a_topic_that_is_not_there,
]
