"""Google's clients as their users make them, but for the address and the token; and what all stories say."""

import grpc
from google.oauth2.credentials import Credentials

PARENT = "projects/demo/locations/us-central1"
WAIT = 60


class Bearer(grpc.UnaryUnaryClientInterceptor):
    """Adds the token to each call."""

    def __init__(self, token):
        self.header = ("authorization", f"Bearer {token}")

    def intercept_unary_unary(self, continuation, details, request):
        details = details._replace(metadata=[*(details.metadata or ()), self.header])
        return continuation(details, request)


def make(kind, transport, address, token):
    """A client over one transport."""
    if transport == "rest":
        return kind(
            credentials=Credentials(token=token),
            client_options={"api_endpoint": f"http://{address}"},
            transport="rest",
        )
    # gRPC sends credentials through TLS alone, so the token goes as what it becomes there.
    channel = grpc.intercept_channel(grpc.insecure_channel(address), Bearer(token))
    return kind(transport=kind.get_transport_class("grpc")(channel=channel))


def expect(true, what):
    """Fails with what was found instead."""
    if not true:
        raise AssertionError(repr(what))


def fails(kind, call):
    """The error that a call must end in."""
    try:
        result = call()
    except kind as error:
        return error
    raise AssertionError(f"gave {result!r}, but must fail with {kind.__name__}")
