"""The HTTP server that is called by push subscriptions, scheduled jobs and tasks, and tells the history about it."""

import base64
import http.server
import json
import random
import threading
import time


class Endpoint:
    """Refuses some, takes its time for some."""

    def __init__(self, history):
        called = {"push": self.pushed, "run": self.ran, "task": self.task}
        self.history = history

        class Handler(http.server.BaseHTTPRequestHandler):
            """One request."""

            protocol_version = "HTTP/1.1"

            def do_POST(self):
                """Whoever calls, calls with POST."""
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                _, what, name = self.path.split("/")
                status = called[what](name, body)
                self.send_response(status)
                self.send_header("content-length", "0")
                self.end_headers()

            def handle(self):
                # Whoever called may have been killed.
                try:
                    super().handle()
                except ConnectionError:
                    pass

            def log_message(self, *_):
                """Says nothing."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def pushed(self, subscription, body):
        """A message."""
        message = json.loads(body)["message"]
        key, number = base64.b64decode(message["data"]).decode().split()
        what = (subscription, key, number, message["messageId"])
        self.history.tell("got", *what)
        if random.random() < 0.05:
            self.history.tell("nack", *what)
            return 503
        if random.random() < 0.2:
            time.sleep(random.uniform(0, 0.1))
        self.history.tell("acking", *what)
        return 204

    def ran(self, job, _):
        """A run of a scheduled job."""
        self.history.tell("ran", job)
        return 200

    def task(self, name, _):
        """A task."""
        if random.random() < 0.1:
            return 503
        if random.random() < 0.3:
            time.sleep(random.uniform(0, 0.3))
        self.history.tell("did", name)
        return 200

    def end(self):
        """Takes no more."""
        self.server.shutdown()
        self.server.server_close()
