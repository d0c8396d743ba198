"""A worker that pulls texts from a Pub/Sub subscription, counts their words, and publishes the counts.

Google's client library, as it is: it streams messages and keeps their leases. A message is acknowledged when its result is published, so a
worker that dies loses none; then a result may come twice, with the same `id`.
"""

import collections
import json
import os
import re
import signal
import sys
import threading


def count(text):
    """How often each word comes."""
    return dict(collections.Counter(re.findall(r"\w+", text.lower())))


class Worker:
    """Takes messages, gives results to `publish`, which returns a future."""

    def __init__(self, publish):
        self.publish = publish

    def take(self, message):
        """One message: counted, published, and then acknowledged; given back when publishing fails."""
        number = message.attributes.get("id")
        if not number:
            print(f"message {message.message_id} has no attribute id: left out", flush=True)
            message.ack()
            return
        words = count(message.data.decode("utf-8", "replace"))
        try:
            self.publish(json.dumps(words, sort_keys=True).encode(), id=number).result(timeout=30)
        except Exception as error:
            print(f"message {number} is given back: {error!r}", flush=True)
            message.nack()
            return
        message.ack()


def main(arguments):
    from google.cloud import pubsub_v1

    if "--dry-run" in arguments:
        from google.pubsub_v1 import gapic_version

        words = count("one fish two fish")
        print(f"counted {words['fish']} fish, with google-cloud-pubsub {gapic_version.__version__}", flush=True)
        return
    publisher = pubsub_v1.PublisherClient()
    subscriber = pubsub_v1.SubscriberClient()
    topic, subscription = os.environ["RESULTS"], os.environ["SUBSCRIPTION"]
    worker = Worker(lambda data, **attributes: publisher.publish(topic, data, **attributes))

    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    # Few at a time, so that several instances share the work.
    flow = pubsub_v1.types.FlowControl(max_messages=20)
    with subscriber:
        pulling = subscriber.subscribe(subscription, worker.take, flow_control=flow)
        # A stream that ends for good ends the worker: the pool starts it again.
        pulling.add_done_callback(lambda _: stop.set())
        print(f"pulling from {subscription}", flush=True)
        stop.wait()
        pulling.cancel()
        pulling.result(timeout=8)


if __name__ == "__main__":
    main(sys.argv[1:])
