"""Asking a server that is killed all the time: for how long, how often, and which errors say no more than that it is away."""

import http.client

import grpc
from google.api_core import exceptions
from google.api_core import retry

from house import Bearer

# A single call ends after so many seconds, whatever became of the server.
CALL = 10
# Known to be no answer: what was asked for may have happened or not.
AWAY = (exceptions.GoogleAPICallError, exceptions.RetryError, OSError, http.client.HTTPException)
# The server must be back in much less, and what is told to end must not wait for what never comes.
GIVE_UP = 60

# Google's own waits grow to a minute, in which a server here is killed twenty times.
AGAIN = retry.Retry(
    predicate=retry.if_exception_type(
        exceptions.Aborted, exceptions.Cancelled, exceptions.DeadlineExceeded, exceptions.InternalServerError,
        exceptions.ServiceUnavailable, exceptions.Unknown,
    ),
    initial=0.05, maximum=0.5, timeout=GIVE_UP,
)


def channel(platform):
    """A channel of its own to the API, which comes back soon after the server does."""
    options = [
        ("grpc.initial_reconnect_backoff_ms", 50), ("grpc.min_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 250),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1),
    ]
    plain = grpc.insecure_channel(f"127.0.0.1:{platform.port}", options=options)
    return grpc.intercept_channel(plain, Bearer(platform.token))


def client(platform, kind, gapic=None, **settings):
    """One of Google's clients, to this platform."""
    return kind(transport=(gapic or kind).get_transport_class("grpc")(channel=channel(platform)), **settings)
