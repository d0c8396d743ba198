"""IAM policies of topics and subscriptions."""

from world import expect


def topics_have_policies(world):
    topic = world.topic()
    keep_and_test(world.publisher, topic, "roles/pubsub.publisher", "pubsub.topics.publish")


def subscriptions_have_policies(world):
    _, subscription = world.pair()
    keep_and_test(world.subscriber, subscription, "roles/pubsub.subscriber", "pubsub.subscriptions.consume")


def keep_and_test(client, resource, role, permission):
    expect("at first", list(client.get_iam_policy(request={"resource": resource}).bindings), [])
    policy = {"bindings": [{"role": role, "members": ["user:a@example.com"]}]}
    client.set_iam_policy(request={"resource": resource, "policy": policy})
    kept = client.get_iam_policy(request={"resource": resource}).bindings
    expect("kept", [(b.role, list(b.members)) for b in kept], [(role, ["user:a@example.com"])])
    tested = client.test_iam_permissions(request={"resource": resource, "permissions": [permission]})
    expect("permissions", list(tested.permissions), [permission])


STORIES = [topics_have_policies, subscriptions_have_policies]
