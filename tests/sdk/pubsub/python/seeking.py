"""Snapshots, and going back and forth in time."""

import datetime

from google.api_core import exceptions
from google.protobuf import duration_pb2, field_mask_pb2

from world import expect, fails


def acknowledged_messages_come_again_from_a_time(world):
    topic, subscription = world.pair(retain_acked_messages=True)
    world.publish(topic, b"a", b"b")
    got = world.pull(subscription, 2)
    world.ack(subscription, got)
    world.nothing(subscription)
    begin = min(m.message.publish_time for m in got)
    world.subscriber.seek(request={"subscription": subscription, "time": begin - datetime.timedelta(seconds=1)})
    expect("again", sorted(world.take(subscription, 2)), [b"a", b"b"])


def the_future_acknowledges_all(world):
    topic, subscription = world.pair()
    world.publish(topic, b"a", b"b")
    later = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(minutes=1)
    world.subscriber.seek(request={"subscription": subscription, "time": later})
    world.nothing(subscription)


def a_snapshot_brings_back_what_it_saw(world):
    topic, subscription = world.pair()
    world.publish(topic, b"acked before")
    world.take(subscription)
    world.publish(topic, b"seen")
    snapshot = world.name("snapshots")
    made = world.subscriber.create_snapshot(name=snapshot, subscription=subscription)
    expect("topic", (made.name, made.topic), (snapshot, topic))
    world.publish(topic, b"later")
    expect("all", sorted(world.take(subscription, 2)), [b"later", b"seen"])
    world.nothing(subscription)
    world.subscriber.seek(request={"subscription": subscription, "snapshot": snapshot})
    expect("again", sorted(world.take(subscription, 2)), [b"later", b"seen"])
    world.nothing(subscription)


def a_snapshot_serves_another_subscription_of_its_topic(world):
    topic, subscription = world.pair()
    snapshot = world.name("snapshots")
    world.subscriber.create_snapshot(name=snapshot, subscription=subscription)
    world.publish(topic, b"x")
    late = world.subscription(topic)
    world.subscriber.seek(request={"subscription": late, "snapshot": snapshot})
    expect("from before it was", world.take(late), [b"x"])


def a_topic_that_keeps_messages_gives_them_to_a_later_subscription(world):
    topic = world.topic(message_retention_duration=duration_pb2.Duration(seconds=3600))
    before = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(minutes=1)
    world.publish(topic, b"early")
    late = world.subscription(topic)
    world.nothing(late)
    world.subscriber.seek(request={"subscription": late, "time": before})
    expect("from before it was", world.take(late), [b"early"])


def a_snapshot_of_another_topic_is_refused(world):
    _, subscription = world.pair()
    _, stranger = world.pair()
    snapshot = world.name("snapshots")
    world.subscriber.create_snapshot(name=snapshot, subscription=subscription)
    fails(
        exceptions.FailedPrecondition, "seek",
        lambda: world.subscriber.seek(request={"subscription": stranger, "snapshot": snapshot}),
    )


def snapshots_live_and_die(world):
    _, subscription = world.pair()
    name, subscriber = world.name("snapshots"), world.subscriber
    asked = {"name": name, "subscription": subscription}
    made = subscriber.create_snapshot(request=asked)
    expect("expires", made.expire_time.timestamp() > 0, True)
    fails(exceptions.AlreadyExists, "twice", lambda: subscriber.create_snapshot(request=asked))
    expect("read", subscriber.get_snapshot(snapshot=name).name, name)
    expect("listed", world.own(subscriber.list_snapshots(project=world.project)), [name])
    subscriber.delete_snapshot(snapshot=name)
    expect("after", world.own(subscriber.list_snapshots(project=world.project)), [])
    fails(exceptions.NotFound, "get", lambda: subscriber.get_snapshot(snapshot=name))
    fails(exceptions.NotFound, "delete", lambda: subscriber.delete_snapshot(snapshot=name))
    fails(exceptions.NotFound, "seek", lambda: subscriber.seek(request={"subscription": subscription, "snapshot": name}))


def snapshot_labels_are_kept_and_updated(world):
    _, subscription = world.pair()
    name = world.name("snapshots")
    made = world.subscriber.create_snapshot(request={"name": name, "subscription": subscription, "labels": {"a": "b"}})
    expect("made", dict(made.labels), {"a": "b"})
    asked = {"snapshot": {"name": name, "labels": {"c": "d"}}, "update_mask": field_mask_pb2.FieldMask(paths=["labels"])}
    expect("changed", dict(world.subscriber.update_snapshot(request=asked).labels), {"c": "d"})
    asked["update_mask"] = field_mask_pb2.FieldMask()
    fails(exceptions.InvalidArgument, "no mask", lambda: world.subscriber.update_snapshot(request=asked))


def a_seek_says_where_to(world):
    _, subscription = world.pair()
    fails(exceptions.InvalidArgument, "nowhere", lambda: world.subscriber.seek(request={"subscription": subscription}))


STORIES = [
    acknowledged_messages_come_again_from_a_time,
    the_future_acknowledges_all,
    a_snapshot_brings_back_what_it_saw,
    a_snapshot_serves_another_subscription_of_its_topic,
    a_topic_that_keeps_messages_gives_them_to_a_later_subscription,
    a_snapshot_of_another_topic_is_refused,
    snapshots_live_and_die,
    snapshot_labels_are_kept_and_updated,
    a_seek_says_where_to,
]
