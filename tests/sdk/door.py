#!/usr/bin/env python3
"""gRPC through the one port of a whole platform, in every way in which clients come: TLS with ALPN through the forward proxy, as gcloud
and every client with Google's own addresses; TLS straight to the port; and HTTP/2 without TLS.

    LAUF_BIN=target/debug/lauf tests/sdk/door.py
"""

import json
import os
import pathlib
import subprocess
import sys
import traceback

import grpc
from google.api_core import exceptions
from google.cloud import run_v2
from google.longrunning import operations_pb2
from google.oauth2.credentials import Credentials

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "platform"))
from platform_under_test import Platform  # noqa: E402

PARENT = "projects/demo/locations/us-central1"


def expect(true, what):
    """Fails with what was found instead."""
    if not true:
        raise AssertionError(repr(what))


def ask(services):
    """What is small and still needs headers, bodies, trailers and details in both directions."""
    try:
        services.get_service(name=f"{PARENT}/services/none")
    except exceptions.NotFound as error:
        expect(error.details and error.details[0].domain == "run.googleapis.com", error)
    else:
        raise AssertionError("a service that is not there")
    service = run_v2.Service(template=run_v2.RevisionTemplate(containers=[run_v2.Container(image="hello")]))
    request = run_v2.CreateServiceRequest(parent=PARENT, service=service, service_id="hello", validate_only=True)
    made = services.create_service(request=request).result(timeout=30)
    expect(made.name == f"{PARENT}/services/hello", made)
    service.template.health_check_disabled = True
    try:
        services.create_service(request=run_v2.CreateServiceRequest(
            parent=PARENT, service=service, service_id="hello"))
    except exceptions.InvalidArgument as error:
        expect(error.details[0].field_violations[0].field == "template.health_check_disabled", error)
    else:
        raise AssertionError("what cannot be honoured was taken")
    expect(not list(services.list_services(parent=PARENT)), "a check stored something")


def with_token(channel, token):
    """Calls of a channel with the token, which gRPC adds by itself only under TLS."""

    class Bearer(grpc.UnaryUnaryClientInterceptor):
        """Adds it to each."""

        def intercept_unary_unary(self, continuation, details, request):
            metadata = [*(details.metadata or ()), ("authorization", f"Bearer {token}")]
            return continuation(details._replace(metadata=metadata), request)

    return grpc.intercept_channel(channel, Bearer())


def over(channel):
    """The client over a channel of ours."""
    kind = run_v2.ServicesClient
    return kind(transport=kind.get_transport_class("grpc")(channel=channel))


def through_the_proxy(platform):
    """the client as it is, with Google's address, by CONNECT and TLS: only the environment says where"""
    # gRPC reads its environment once, so this runs in a process of its own.
    environment = dict(
        os.environ, https_proxy=f"http://127.0.0.1:{platform.port}", no_proxy="", no_grpc_proxy="",
        GRPC_DEFAULT_SSL_ROOTS_FILE_PATH=str(authority(platform)), TOKEN=platform.token,
    )
    done = subprocess.run([sys.executable, __file__, "client"], env=environment, capture_output=True, text=True, timeout=120)
    expect(done.returncode == 0, done.stdout + done.stderr)


def with_tls(platform):
    """TLS straight to the port, HTTP/2 by ALPN"""
    roots = grpc.ssl_channel_credentials(authority(platform).read_bytes())
    both = grpc.composite_channel_credentials(roots, grpc.access_token_call_credentials(platform.token))
    name = (("grpc.ssl_target_name_override", "run.googleapis.com"), ("grpc.enable_http_proxy", 0))
    ask(over(grpc.secure_channel(f"127.0.0.1:{platform.port}", both, options=name)))


def without_tls(platform):
    """HTTP/2 by prior knowledge, on the platform's own address"""
    channel = grpc.insecure_channel(f"127.0.0.1:{platform.port}", options=(("grpc.enable_http_proxy", 0),))
    channel = with_token(channel, platform.token)
    ask(over(channel))
    try:
        over(grpc.insecure_channel(f"127.0.0.1:{platform.port}")).get_service(name=f"{PARENT}/services/x")
    except exceptions.Unauthenticated:
        pass
    else:
        raise AssertionError("a stranger was let in")
    unknown = channel.unary_unary(
        "/google.longrunning.Operations/CancelOperation",
        request_serializer=operations_pb2.CancelOperationRequest.SerializeToString,
        response_deserializer=bytes,
    )
    try:
        unknown(operations_pb2.CancelOperationRequest(name="x"))
    except grpc.RpcError as error:
        expect(error.code() == grpc.StatusCode.UNIMPLEMENTED, error)


def authority(platform):
    """The certificate of the platform's own authority."""
    return pathlib.Path(json.loads((platform.data / "server.json").read_text())["ca_file"])


def main():
    """Tells the stories; the last line is their sum."""
    if sys.argv[1:] == ["client"]:
        ask(run_v2.ServicesClient(credentials=Credentials(token=os.environ["TOKEN"])))
        return 0
    passed = failed = 0
    with Platform() as platform:
        for story in (through_the_proxy, with_tls, without_tls):
            try:
                story(platform)
                passed += 1
                print(f"ok door {story.__name__}: {story.__doc__}", flush=True)
            except Exception:  # The next story must still be told.
                traceback.print_exc(limit=6)
                failed += 1
                print(f"FAIL door {story.__name__}: {story.__doc__}", flush=True)
    print(f"{passed} passed, {failed} failed, 0 skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
