"""Push: what an endpoint gets, what its answers do, and changing the configuration."""

import base64
import http.server
import json
import threading

from google.api_core import exceptions

from world import expect, fails, wait_for


class Endpoint:
    """An HTTP server that keeps what it gets. Answers are taken from `answers` in turn, then 204."""

    def __init__(self, *answers):
        self.got, self.answers = [], list(answers)
        endpoint = self

        class Handler(http.server.BaseHTTPRequestHandler):
            """Takes everything."""

            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                endpoint.got.append((self.headers, body))
                self.send_response(endpoint.answers.pop(0) if endpoint.answers else 204)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_):
                """Says nothing."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/push"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def an_endpoint_gets_messages_in_an_envelope(world):
    endpoint = Endpoint()
    topic, subscription = world.pair(push_config={"push_endpoint": endpoint.url})
    [wanted] = world.publish(topic, {"data": b"hello", "attributes": {"k": "v"}})
    wait_for("a push", lambda: endpoint.got)
    headers, body = endpoint.got[0]
    said = json.loads(body)
    expect("type", headers["content-type"].split(";")[0], "application/json")
    expect("subscription", said["subscription"], subscription)
    message = said["message"]
    expect("data", base64.b64decode(message["data"]), b"hello")
    expect("attributes", message["attributes"], {"k": "v"})
    expect("id", (message["messageId"], message["message_id"]), (wanted, wanted))
    expect("time", message["publishTime"], message["publish_time"])


def a_refused_push_comes_again(world):
    endpoint = Endpoint(500, 429)
    topic, _ = world.pair(push_config={"push_endpoint": endpoint.url})
    world.publish(topic, b"x")
    wait_for("three pushes", lambda: len(endpoint.got) >= 3)
    ids = {json.loads(body)["message"]["messageId"] for _, body in endpoint.got}
    expect("the same message", len(ids), 1)


def an_unwrapped_push_is_the_data(world):
    endpoint = Endpoint()
    topic, subscription = world.pair(push_config={"push_endpoint": endpoint.url, "no_wrapper": {"write_metadata": True}})
    [wanted] = world.publish(topic, {"data": b"plain", "attributes": {"k": "v"}})
    wait_for("a push", lambda: endpoint.got)
    headers, body = endpoint.got[0]
    expect("body", body, b"plain")
    expect("attribute", headers["k"], "v")
    expect("id", headers["x-goog-pubsub-message-id"], wanted)
    expect("subscription", headers["x-goog-pubsub-subscription-name"], subscription)


def a_subscription_turns_to_push_and_back(world):
    endpoint = Endpoint()
    topic, subscription = world.pair()
    change = world.subscriber.modify_push_config
    change(subscription=subscription, push_config={"push_endpoint": endpoint.url, "attributes": {"x-goog-version": "v1"}})
    read = world.subscriber.get_subscription(subscription=subscription).push_config
    expect("configured", (read.push_endpoint, dict(read.attributes)), (endpoint.url, {"x-goog-version": "v1"}))
    world.publish(topic, b"pushed")
    wait_for("a push", lambda: endpoint.got)
    change(subscription=subscription, push_config={})
    expect("endpoint", world.subscriber.get_subscription(subscription=subscription).push_config.push_endpoint, "")
    world.publish(topic, b"pulled")
    expect("pulled", world.take(subscription), [b"pulled"])
    expect("pushed", len(endpoint.got), 1)


def a_push_subscription_is_not_pulled(world):
    _, subscription = world.pair(push_config={"push_endpoint": "http://127.0.0.1:9/"})
    fails(
        exceptions.FailedPrecondition, "pull",
        lambda: world.subscriber.pull(subscription=subscription, max_messages=1, timeout=5),
    )


def an_endpoint_is_a_url(world):
    topic = world.topic()
    for url in ["not a url", "ftp://example.com/"]:
        fails(
            exceptions.InvalidArgument, url,
            lambda url=url: world.subscription(topic, push_config={"push_endpoint": url}),
        )


STORIES = [
    an_endpoint_gets_messages_in_an_envelope,
    a_refused_push_comes_again,
    an_unwrapped_push_is_the_data,
    a_subscription_turns_to_push_and_back,
    a_push_subscription_is_not_pulled,
    an_endpoint_is_a_url,
]
