"""Google's Pub/Sub client publishes and pulls, and tells the history about it."""

import concurrent.futures
import contextlib
import random
import threading
import time

from google.cloud import pubsub_v1
from google.cloud.pubsub_v1.subscriber.scheduler import ThreadScheduler
from google.pubsub_v1 import PublisherClient, SubscriberClient

from going import Going
from house import PROJECT
from later import Later
from patience import AGAIN, AWAY, CALL, GIVE_UP, client

TOPIC = "orders"
KEYS = ("-", "-", "red", "green", "blue", "white", "black")
# The subscriptions, and what they promise to those who have them as these do. Google's client takes whatever it had from the server
# before for what it still has, hands out the next of a key when it hears that this is no longer so, and so keeps less than the server.
STREAMED = {"exact": ("exactly-once", "ordered"), "plain": ()}
PULLED = {"strict": ("exactly-once", "ordered", "in-sessions")}
PUSHED = {"pushed": ("ordered", "one-by-one")}
PAUSE = 0.03
# Publishes without an answer; more would only wait in the client.
OPEN = 200
# What a stream may have at once. The client keeps copies of that from each server before, and works them all off.
HELD = 50
# With exactly-once delivery a lease outlives the server, and what was on its way to the client waits for the end of it. Google's client
# takes a minute where nobody says otherwise.
LEASE = 10
# One pull, and how long it waits for the first message.
PULL, WAIT = 20, 5


def prepare(platform, history, endpoint):
    """The topic and its subscriptions, before all messages."""
    publisher = client(platform, PublisherClient)
    publisher.create_topic(name=f"{PROJECT}/topics/{TOPIC}")
    subscriber = client(platform, SubscriberClient)
    for name, promises in {**STREAMED, **PULLED, **PUSHED}.items():
        settings = {"enable_exactly_once_delivery": "exactly-once" in promises, "enable_message_ordering": "ordered" in promises}
        if name in PUSHED:
            settings["push_config"] = {"push_endpoint": f"{endpoint}/push/{name}"}
        subscriber.create_subscription(request={
            "name": f"{PROJECT}/subscriptions/{name}", "topic": f"{PROJECT}/topics/{TOPIC}", "ack_deadline_seconds": 10,
            # Longer than a server needs to come back, shorter than anybody waits for a message.
            "retry_policy": {"minimum_backoff": {"nanos": 100_000_000}, "maximum_backoff": {"seconds": 1}},
            **settings,
        })
        history.tell("rules", name, TOPIC, *promises)


class Publisher:
    """Publishes all the time, some with a key."""

    def __init__(self, platform, history):
        self.history = history
        self.numbers = dict.fromkeys(KEYS, 0)
        self.open = threading.BoundedSemaphore(OPEN)
        self.client = client(
            platform, pubsub_v1.PublisherClient, PublisherClient,
            publisher_options=pubsub_v1.types.PublisherOptions(enable_message_ordering=True, retry=AGAIN, timeout=CALL),
        )
        self.topic = f"{PROJECT}/topics/{TOPIC}"
        self.going = Going("publisher", self.step)

    def step(self):
        """One message."""
        if not self.open.acquire(timeout=0.5):
            return
        key = random.choice(KEYS)
        self.numbers[key] += 1
        number = self.numbers[key]
        self.history.tell("send", TOPIC, key, number)
        ordering = "" if key == "-" else key
        future = self.client.publish(self.topic, f"{key} {number}".encode(), ordering_key=ordering)
        future.add_done_callback(lambda done: self.answered(done, key, number))
        time.sleep(random.uniform(0, 2 * PAUSE))

    def answered(self, future, key, number):
        """A publish was acknowledged, or the client gave up."""
        if future.exception() is None:
            self.history.tell("sent", TOPIC, key, number, future.result())
        elif key != "-":
            self.client.resume_publish(self.topic, key)
        self.open.release()

    def end(self):
        """Ends when all publishes have an answer."""
        self.going.end(GIVE_UP)
        for _ in range(OPEN):
            if not self.open.acquire(timeout=GIVE_UP):
                self.going.error = self.going.error or "publishes without an answer"
                return


class Streamer:
    """Has a stream of one subscription, and acknowledges or gives back what it gets, now or a little later."""

    def __init__(self, platform, history, name):
        self.history, self.name, self.later = history, name, Later()
        self.exactly_once = "exactly-once" in STREAMED[name]
        self.client = client(platform, pubsub_v1.SubscriberClient, SubscriberClient)
        self.stream = None
        self.going = Going(f"stream of {name}", self.step)

    def step(self):
        """One stream, which the client opens again by itself unless it takes an error for the last."""
        # One thread, so that the history has messages in the order in which the client got them.
        scheduler = ThreadScheduler(executor=concurrent.futures.ThreadPoolExecutor(max_workers=1))
        self.stream = self.client.subscribe(
            f"{PROJECT}/subscriptions/{self.name}", self.got, scheduler=scheduler,
            flow_control=pubsub_v1.types.FlowControl(
                max_messages=HELD, min_duration_per_lease_extension=LEASE, max_duration_per_lease_extension=LEASE),
        )
        with contextlib.suppress(Exception):
            self.stream.result()
        time.sleep(0.1)

    def got(self, message):
        """A message came."""
        key, number = message.data.decode().split()
        what = (self.name, key, number, message.message_id)
        self.history.tell("got", *what)
        # One with a key that is given back is passed by the next one in Google's client itself.
        if key == "-" and random.random() < 0.1:
            self.later.after(random.uniform(0, 0.5), lambda: self.give_back(message, what))
        elif random.random() < 0.3:
            self.later.after(random.uniform(0, 0.3), lambda: self.acknowledge(message, what))
        else:
            self.acknowledge(message, what)

    def give_back(self, message, what):
        """Wants it again."""
        self.history.tell("nack", *what)
        message.nack()

    def acknowledge(self, message, what):
        """Is done with it."""
        self.history.tell("acking", *what)
        if not self.exactly_once:
            message.ack()
            return

        def answered(done):
            if done.exception() is None:
                self.history.tell("acked", *what)

        message.ack_with_response().add_done_callback(answered)

    def end(self):
        """Closes the stream."""
        self.going.ending.set()
        if self.stream:
            self.stream.cancel()
        self.going.end(GIVE_UP)


class Puller:
    """Pulls from one subscription, answer by answer, and acknowledges or gives back each as a whole."""

    def __init__(self, platform, history, name):
        self.history, self.name = history, name
        self.path = f"{PROJECT}/subscriptions/{name}"
        self.client = client(platform, SubscriberClient)
        self.going = Going(f"puller of {name}", self.step)

    def step(self):
        """One answer."""
        try:
            answer = self.client.pull(subscription=self.path, max_messages=PULL, retry=None, timeout=WAIT)
            self.take([(received.ack_id, received.message) for received in answer.received_messages])
        except AWAY:
            self.history.tell("session", self.name)
            time.sleep(0.05)

    def take(self, received):
        """What came together."""
        what = [(self.name, *message.data.decode().split(), message.message_id) for _, message in received]
        ids = [ack_id for ack_id, _ in received]
        self.tell("got", what)
        if not received:
            return
        if random.random() < 0.1:
            self.tell("nack", what)
            self.history.tell("session", self.name)
            self.client.modify_ack_deadline(
                subscription=self.path, ack_ids=ids, ack_deadline_seconds=0, retry=None, timeout=CALL)
        else:
            self.tell("acking", what)
            self.client.acknowledge(subscription=self.path, ack_ids=ids, retry=None, timeout=CALL)
            self.tell("acked", what)

    def tell(self, word, what):
        """The same of all."""
        for each in what:
            self.history.tell(word, *each)

    def end(self):
        """After the answer that it waits for."""
        self.going.end(GIVE_UP)
