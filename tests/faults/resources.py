"""Creates and deletes all kinds of things, and looks for them at the end."""

import collections
import random
import time

from google.cloud import scheduler_v1, tasks_v2
from google.pubsub_v1 import PublisherClient, SubscriberClient

import executions
from calls import NEVER, REGION
from going import Going
from house import PROJECT
from messages import TOPIC
from patience import AWAY, CALL, GIVE_UP, client

# What the history knows by these names was made here.
PREFIX = "kept-"


def job_kind(platform):
    """Jobs, which have no client of Google's that is asked without TLS."""
    Thing = collections.namedtuple("Thing", "name")

    def listed(_):
        items = executions.ask(platform, "GET", "jobs?limit=1000")["items"]
        return [Thing(f"jobs/{item['metadata']['name']}") for item in items]

    return ("jobs", lambda name, _: executions.create(platform, name.rsplit("/", 1)[1], ["end"], 1),
            lambda name, _: executions.ask(platform, "DELETE", name), listed)


class Resources:
    """One after the other, each kind in its turn."""

    def __init__(self, platform, history, with_jobs):
        self.history, self.number = history, 0
        topics = client(platform, PublisherClient)
        subscriptions = client(platform, SubscriberClient)
        queues = client(platform, tasks_v2.CloudTasksClient)
        schedules = client(platform, scheduler_v1.CloudSchedulerClient)
        topic = f"{PROJECT}/topics/{TOPIC}"
        # By kind: the collection, and how to create, delete and list.
        self.kinds = {
            "topic": (f"{PROJECT}/topics", lambda name, how: topics.create_topic(name=name, **how),
                      lambda name, how: topics.delete_topic(topic=name, **how),
                      lambda how: topics.list_topics(project=PROJECT, **how)),
            "subscription": (f"{PROJECT}/subscriptions",
                             lambda name, how: subscriptions.create_subscription(name=name, topic=topic, **how),
                             lambda name, how: subscriptions.delete_subscription(subscription=name, **how),
                             lambda how: subscriptions.list_subscriptions(project=PROJECT, **how)),
            "queue": (f"{REGION}/queues", lambda name, how: queues.create_queue(parent=REGION, queue={"name": name}, **how),
                      lambda name, how: queues.delete_queue(name=name, **how),
                      lambda how: queues.list_queues(parent=REGION, **how)),
            "schedule": (f"{REGION}/jobs",
                         lambda name, how: schedules.create_job(parent=REGION, job={
                             "name": name, "schedule": NEVER, "http_target": {"uri": "http://127.0.0.1:9/"}}, **how),
                         lambda name, how: schedules.delete_job(name=name, **how),
                         lambda how: schedules.list_jobs(parent=REGION, **how)),
        }
        if with_jobs:
            self.kinds["job"] = job_kind(platform)
        self.going = Going("resources", self.step)

    def step(self):
        """Creates one, and deletes some."""
        self.number += 1
        kind = random.choice(list(self.kinds))
        collection, create, delete, _ = self.kinds[kind]
        name = f"{PREFIX}{self.number}"
        if self.ask("make", "made", kind, name, lambda how: create(f"{collection}/{name}", how)) and random.random() < 0.3:
            self.ask("drop", "dropped", kind, name, lambda how: delete(f"{collection}/{name}", how))
        time.sleep(random.uniform(0, 0.4))

    def ask(self, asking, answered, kind, name, call):
        """One call, told before and after."""
        self.history.tell(asking, kind, name)
        try:
            call({"retry": None, "timeout": CALL})
        except AWAY:
            time.sleep(0.1)
            return False
        self.history.tell(answered, kind, name)
        return True

    def look(self):
        """What is there now."""
        for kind, (_, _, _, every) in self.kinds.items():
            for thing in every({"timeout": CALL}):
                name = thing.name.rsplit("/", 1)[1]
                if name.startswith(PREFIX):
                    self.history.tell("there", kind, name)

    def end(self):
        """After the one that it creates."""
        self.going.end(GIVE_UP)
