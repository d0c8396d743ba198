"""Clients of the Pub/Sub that PUBSUB_EMULATOR_HOST names, made as its users make them, and short ways to say what happens."""

import itertools
import os
import time

from google.api_core import exceptions
from google.cloud import pubsub_v1
from google.pubsub_v1 import PublisherClient

# Nothing that comes takes that long; what never comes, in a place that is known for it, is not waited for as long.
WAIT = int(os.environ.get("PATIENCE", "60"))
PROJECT = "projects/demo"
WORLDS = itertools.count(1)
STAMP = f"{os.getpid()}-{int(time.time())}"


class Failed(Exception):
    """Something was not as it should be."""


class World:
    """The clients of one story, and names that nothing else has."""

    def __init__(self):
        # All stories share the one project that every place has; what is listed is told apart by this.
        self.mark = f"py-{STAMP}-{next(WORLDS)}"
        self.project = PROJECT
        self.numbers = itertools.count(1)
        self.publisher = pubsub_v1.PublisherClient()
        self.subscriber = pubsub_v1.SubscriberClient()
        self.schemas = pubsub_v1.SchemaServiceClient()

    def name(self, collection):
        return f"{self.project}/{collection}/{self.mark}-{next(self.numbers)}"

    def own(self, listed):
        """The names of a list that this story has made."""
        return [one.name for one in listed if self.mark in one.name]

    def pages(self, call, size):
        """The names on each page of a list, and that none is longer than asked."""
        pages, token = [], ""
        while True:
            page = next(call(request={"project": self.project, "page_size": size, "page_token": token}).pages)
            names = [one.name for one in getattr(page, "topics", None) or page.subscriptions]
            expect("no more than asked", len(names) <= size, True)
            pages.append(names)
            token = page.next_page_token
            if not token:
                return pages

    def topic(self, **settings):
        """A new topic."""
        return self.publisher.create_topic(request={"name": self.name("topics"), **settings}).name

    def subscription(self, topic, **settings):
        """A new subscription of a topic."""
        asked = {"name": self.name("subscriptions"), "topic": topic, **settings}
        return self.subscriber.create_subscription(request=asked).name

    def pair(self, **settings):
        """A topic and a subscription of it."""
        topic = self.topic()
        return topic, self.subscription(topic, **settings)

    def publish(self, topic, *messages):
        """Publishes in one request, without the client's own checks and batches; bytes stand for a message of them."""
        messages = [{"data": m} if isinstance(m, bytes) else m for m in messages]
        asked = {"topic": topic, "messages": messages}
        # Nor its retries: an error is what the service says first.
        return list(PublisherClient.publish(self.publisher, request=asked, timeout=WAIT, retry=None).message_ids)

    def pull(self, subscription, count=1, what="messages"):
        """Pulls until there are `count` messages."""
        got, deadline = [], time.monotonic() + WAIT
        while len(got) < count and time.monotonic() < deadline:
            try:
                answer = self.subscriber.pull(subscription=subscription, max_messages=count - len(got), timeout=5)
                got.extend(answer.received_messages)
            except exceptions.DeadlineExceeded:
                pass
        expect(f"number of {what}", len(got), count)
        return got

    def take(self, subscription, count=1):
        """Pulls and acknowledges; gives the messages' data."""
        got = self.pull(subscription, count)
        self.ack(subscription, got)
        return [m.message.data for m in got]

    def nothing(self, subscription):
        """There is no message now."""
        asked = {"subscription": subscription, "max_messages": 10, "return_immediately": True}
        answer = self.subscriber.pull(request=asked)
        expect("messages", [m.message.data for m in answer.received_messages], [])

    def ack(self, subscription, got):
        self.subscriber.acknowledge(subscription=subscription, ack_ids=[m.ack_id for m in got])

    def nack(self, subscription, got):
        self.lease(subscription, got, 0)

    def lease(self, subscription, got, seconds):
        self.subscriber.modify_ack_deadline(
            subscription=subscription, ack_ids=[m.ack_id for m in got], ack_deadline_seconds=seconds
        )


def expect(what, got, wanted):
    """Compares, with words for the one who reads the failure."""
    if got != wanted:
        raise Failed(f"{what}: got {got!r}, wanted {wanted!r}")


def fails(kind, what, call):
    """A call that must end in an error of this kind."""
    try:
        result = call()
    except exceptions.GoogleAPICallError as error:
        if type(error) is not kind:  # pylint: disable=unidiomatic-typecheck
            raise Failed(f"{what}: {type(error).__name__} ({error.message}), wanted {kind.__name__}") from error
        return error
    raise Failed(f"{what}: accepted, wanted {kind.__name__}; {str(result)[:80]!r}")


def wait_for(what, true, wait=WAIT):
    """Waits until something is true."""
    deadline = time.monotonic() + wait
    while not true():
        if time.monotonic() > deadline:
            raise Failed(f"{what} did not come")
        time.sleep(0.05)
