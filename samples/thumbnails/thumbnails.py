"""A service that gets images by Pub/Sub push and publishes a thumbnail of each.

The answer is the acknowledgement: 204 when the thumbnail is published, 500 when it could not be, so that Pub/Sub sends the image again.
What is no image never will be one: it is left out, with a line in the log, and acknowledged.
"""

import base64
import binascii
import http.server
import io
import json
import os
import signal
import threading
import urllib.request

from PIL import Image

SIZE = 64
# A request of Pub/Sub has at most 10,000,000 bytes, and base64 makes four of three.
MOST = 14_000_000
# A small file may unfold to a huge picture.
Image.MAX_IMAGE_PIXELS = 20_000_000


class Unusable(Exception):
    """What was sent is no image, and would not be the next time."""


def thumbnail(data):
    """A JPEG whose longer side has SIZE pixels at most."""
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG")) as image:
            image.thumbnail((SIZE, SIZE))
            result = io.BytesIO()
            image.convert("RGB").save(result, "JPEG", quality=80)
            return result.getvalue()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise Unusable(f"no image: {error}") from error


def read(body):
    """Id and image of a push request."""
    try:
        message = json.loads(body)["message"]
        return message["attributes"]["id"], base64.b64decode(message["data"], validate=True)
    except (ValueError, KeyError, TypeError, binascii.Error) as error:
        raise Unusable(f"not what Pub/Sub pushes: {error!r}") from error


def publish(number, data):
    """Publishes over REST."""
    message = {"data": base64.b64encode(data).decode(), "attributes": {"id": number}}
    request = urllib.request.Request(
        f"http://{os.environ['PUBSUB_EMULATOR_HOST']}/v1/{os.environ['RESULTS']}:publish",
        data=json.dumps({"messages": [message]}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        answer.read()


def handle(body, publish=publish):
    """The status that answers a push."""
    try:
        number, data = read(body)
        small = thumbnail(data)
    except Unusable as error:
        print(f"left out: {error}", flush=True)
        return 204
    try:
        publish(number, small)
    except OSError as error:
        print(f"image {number} has to come again: {error}", flush=True)
        return 500
    return 204


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.reply(200, b"Thumbnails: push images here\n")

    def do_POST(self):
        length = self.headers.get("Content-Length", "")
        if not length.isdigit() or int(length) > MOST:
            self.close_connection = True
            self.reply(413, b"Content-Length must be there, and %d at most\n" % MOST)
            return
        self.reply(handle(self.rfile.read(int(length))))

    def reply(self, status, body=b""):
        self.send_response(status)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Lauf writes a log of requests."""


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True


def main():
    server = Server(("0.0.0.0", int(os.environ.get("PORT", "8080"))), Handler)
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    server.serve_forever(poll_interval=0.1)


if __name__ == "__main__":
    main()
