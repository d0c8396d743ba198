"""What Pub/Sub promises, whatever is killed."""

import collections


class Subscription:
    """What one subscription was seen to do."""

    def __init__(self, name, topic, promises):
        self.name, self.topic, self.promises = name, topic, promises
        self.got, self.given_back, self.finished, self.confirmed = set(), set(), set(), set()
        # By key: the numbers that came, those given back since, those that its subscriber says it is done with since.
        self.came = collections.defaultdict(set)
        self.waited_for = collections.defaultdict(set)
        self.done = collections.defaultdict(set)
        # By key: the last identity of this session.
        self.last = {}


def judge(lines):
    """The broken promises of a history."""
    # Known before all else: what comes before the answer to its publisher is a message too.
    asked = {(topic, key, int(number)) for word, *rest in lines if word == "send" for topic, key, number in [rest]}
    sent = collections.defaultdict(dict)
    for word, *rest in lines:
        if word == "sent":
            topic, key, number, identity = rest
            sent[topic, key][int(number)] = identity
    yield from misplaced(sent)
    subscriptions = {}
    for word, *rest in lines:
        if word == "rules":
            name, topic, *promises = rest
            subscriptions[name] = Subscription(name, topic, promises)
        elif word == "session":
            subscriptions[rest[0]].last = {}
        elif word in ("got", "nack", "acking", "acked"):
            name, key, number, identity = rest
            yield from follow(subscriptions[name], word, key, int(number), identity, asked, sent)
    for subscription in subscriptions.values():
        yield from missing(subscription, sent)


def misplaced(sent):
    """What was acknowledged to its publisher has its place behind what was before."""
    for (topic, key), numbers in sent.items():
        last = -1
        for number, identity in sorted(numbers.items()) if key != "-" else ():
            if int(identity) <= last:
                yield f"misplaced: {topic} has {key} {number} as {identity}, and an earlier one as {last}"
            last = int(identity)


def follow(subscription, word, key, number, identity, asked, sent):
    """One line of a subscription."""
    if word == "got":
        if (subscription.topic, key, number) not in asked:
            yield f"unpublished: {subscription.name} got {key} {number}, which nobody published"
        if "exactly-once" in subscription.promises and identity in subscription.confirmed:
            yield f"again: {subscription.name} got {key} {number} ({identity}) after it was told that it is done"
        if key != "-":
            yield from out_of_order(subscription, key, number, identity, sent)
        subscription.got.add(identity)
        subscription.came[key].add(number)
        subscription.done[key].discard(number)
        subscription.given_back.discard(identity)
        subscription.waited_for[key].discard(number)
    elif word == "nack":
        # It may be done already: one that is given back may be a copy, on its way when another was acknowledged.
        if identity not in subscription.finished:
            subscription.given_back.add(identity)
        subscription.waited_for[key].add(number)
    elif word == "acking":
        subscription.done[key].add(number)
        subscription.finished.add(identity)
        subscription.given_back.discard(identity)
    else:
        subscription.confirmed.add(identity)


def out_of_order(subscription, key, number, identity, sent):
    """A message came whose turn it was not."""
    name, promises = subscription.name, subscription.promises
    earlier = {each for each in sent[subscription.topic, key] if each < number}
    if "ordered" in promises and (passed := earlier - subscription.came[key] | earlier & subscription.waited_for[key]):
        yield f"out of order: {name} got {key} {number} before {min(passed)}"
    if "one-by-one" in promises and (open_ones := earlier & subscription.came[key] - subscription.done[key]):
        yield f"too early: {name} got {key} {number} before it was done with {min(open_ones)}"
    if "in-sessions" in promises:
        last = subscription.last.get(key, -1)
        if int(identity) <= last:
            yield f"backwards: {name} got {key} {number} as {identity} in the session in which it got {last}"
        subscription.last[key] = int(identity)


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
