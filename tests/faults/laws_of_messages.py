"""What Pub/Sub promises, whatever is killed."""

import collections


class Subscription:
    """What one subscription was seen to do."""

    def __init__(self, name, topic, promises):
        self.name, self.topic = name, topic
        self.exactly_once = "exactly-once" in promises
        self.ordered = "ordered" in promises
        self.got, self.given_back, self.confirmed = set(), set(), set()
        # By key: the numbers that its subscriber says it is done with, and has not got again.
        self.done = collections.defaultdict(set)


def judge(lines):
    """The broken promises of a history."""
    # Known before all else: what comes before the answer to its publisher is a message too.
    asked = {(topic, key, int(number)) for word, *rest in lines if word == "send" for topic, key, number in [rest]}
    sent = collections.defaultdict(dict)
    for word, *rest in lines:
        if word == "sent":
            topic, key, number, identity = rest
            sent[topic, key][int(number)] = identity
    subscriptions = {}
    for word, *rest in lines:
        if word == "rules":
            name, topic, *promises = rest
            subscriptions[name] = Subscription(name, topic, promises)
        elif word in ("got", "nack", "acking", "acked"):
            name, key, number, identity = rest
            yield from follow(subscriptions[name], word, key, int(number), identity, asked, sent)
    for subscription in subscriptions.values():
        yield from missing(subscription, sent)


def follow(subscription, word, key, number, identity, asked, sent):
    """One line of a subscription."""
    name = subscription.name
    if word == "got":
        if (subscription.topic, key, number) not in asked:
            yield f"unpublished: {name} got {key} {number}, which nobody published"
        if subscription.exactly_once and identity in subscription.confirmed:
            yield f"again: {name} got {key} {number} ({identity}) after it was told that it is done"
        if subscription.ordered and key != "-":
            for earlier in sorted(sent[subscription.topic, key]):
                if earlier < number and earlier not in subscription.done[key]:
                    yield f"out of order: {name} got {key} {number} before it was done with {earlier}"
                    break
        subscription.done[key].discard(number)
        subscription.got.add(identity)
        subscription.given_back.discard(identity)
    elif word == "nack":
        subscription.given_back.add(identity)
    elif word == "acking":
        subscription.done[key].add(number)
    else:
        subscription.confirmed.add(identity)


def missing(subscription, sent):
    """What should have come until the end."""
    for (topic, key), numbers in sent.items():
        if topic != subscription.topic:
            continue
        for number, identity in numbers.items():
            if identity not in subscription.got:
                yield f"lost: {subscription.name} never got {key} {number} ({identity}), whose publish was acknowledged"
            elif identity in subscription.given_back:
                yield f"lost: {subscription.name} gave back {key} {number} ({identity}) and never got it again"
