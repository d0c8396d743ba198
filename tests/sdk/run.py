#!/usr/bin/env python3
"""Drives the unmodified google-cloud-run client of PyPI, over REST and over gRPC, against the API alone.

    tests/sdk/run.py SERVE_EXAMPLE

SERVE_EXAMPLE is crates/api/examples/serve.rs, built: nothing runs there, and all is ready at once.
"""

import socket
import subprocess
import sys
import time
import traceback

import grpc
from google.api_core import exceptions
from google.auth.exceptions import RefreshError
from google.cloud import run_v2
from google.iam.v1 import iam_policy_pb2, policy_pb2
from google.longrunning import operations_pb2
from google.protobuf import duration_pb2, field_mask_pb2

from clients import PARENT, WAIT, expect, fails, make

NAME = f"{PARENT}/services/hello"
# google.api.LaunchStage.GA; the client has the number alone.
GA = 4


class Server:
    """The API on a free port of loopback, and clients of it over one transport."""

    def __init__(self, transport):
        self.transport = transport

    def __enter__(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.process = subprocess.Popen(
            [sys.argv[1], f"127.0.0.1:{port}"], stdout=subprocess.PIPE, text=True
        )
        self.address = f"127.0.0.1:{port}"
        # The token is printed once the port is open.
        self.token = self.process.stdout.readline().strip()
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()

    def client(self, kind):
        """A client as its users make it, but for the address and the token."""
        return make(kind, self.transport, self.address, self.token)


def wanted(image="hello"):
    """A service with something in every part of it."""
    return run_v2.Service(
        description="says hello",
        labels={"team": "a"},
        ingress=run_v2.IngressTraffic.INGRESS_TRAFFIC_ALL,
        template=run_v2.RevisionTemplate(
            scaling=run_v2.RevisionScaling(min_instance_count=1, max_instance_count=7),
            timeout=duration_pb2.Duration(seconds=60),
            max_instance_request_concurrency=5,
            execution_environment=run_v2.ExecutionEnvironment.EXECUTION_ENVIRONMENT_GEN2,
            containers=[run_v2.Container(
                image=image,
                env=[run_v2.EnvVar(name="A", value="1")],
                ports=[run_v2.ContainerPort(name="h2c", container_port=9000)],
                resources=run_v2.ResourceRequirements(
                    limits={"cpu": "1", "memory": "256Mi"}, cpu_idle=True, startup_cpu_boost=True
                ),
                liveness_probe=run_v2.Probe(
                    period_seconds=5, http_get=run_v2.HTTPGetAction(path="/up")
                ),
            )],
        ),
        traffic=[run_v2.TrafficTarget(
            type_=run_v2.TrafficTargetAllocationType.TRAFFIC_TARGET_ALLOCATION_TYPE_LATEST,
            percent=100, tag="live",
        )],
    )


def create(server):
    """create a service and wait for its operation"""
    services = server.client(run_v2.ServicesClient)
    operation = services.create_service(parent=PARENT, service=wanted(), service_id="hello")
    made = operation.result(timeout=WAIT)
    expect(made.name == NAME, made)
    expect(operation.metadata.name == NAME, operation.metadata)
    expect(operation.done(), operation.operation)


def get(server):
    """get it: every field comes back"""
    got = server.client(run_v2.ServicesClient).get_service(name=NAME)
    sent = wanted()
    for field in ("description", "labels", "ingress"):
        expect(getattr(got, field) == getattr(sent, field), got)
    for field in ("scaling", "timeout", "max_instance_request_concurrency", "execution_environment"):
        expect(getattr(got.template, field) == getattr(sent.template, field), got.template)
    container, asked = got.template.containers[0], sent.template.containers[0]
    for field in ("image", "env", "ports", "resources"):
        expect(getattr(container, field) == getattr(asked, field), container)
    expect(container.liveness_probe.http_get.path == "/up", container)
    expect(container.startup_probe.failure_threshold == 1, container)
    expect(got.traffic[0].tag == "live", got.traffic)
    expect(got.traffic_statuses[0].uri.startswith("http"), got.traffic_statuses)
    expect(got.generation == 1 and got.observed_generation == 1, got)
    expect(got.launch_stage == GA, got)
    ready = got.terminal_condition
    expect(ready.type_ == "Ready", ready)
    expect(ready.state == run_v2.Condition.State.CONDITION_SUCCEEDED, ready)
    expect(got.uri and got.uid and got.etag and got.create_time, got)


def put_back(server):
    """update it with what was got: nothing changes"""
    services = server.client(run_v2.ServicesClient)
    got = services.get_service(name=NAME)
    services.update_service(service=got).result(timeout=WAIT)
    expect(services.get_service(name=NAME) == got, got)


def update(server):
    """update by mask, in whole, and with an old etag"""
    services = server.client(run_v2.ServicesClient)
    old = services.get_service(name=NAME)
    mask = field_mask_pb2.FieldMask(paths=["description", "template.max_instance_request_concurrency"])
    change = run_v2.Service(
        name=NAME, description="second",
        template=run_v2.RevisionTemplate(max_instance_request_concurrency=9),
    )
    request = run_v2.UpdateServiceRequest(service=change, update_mask=mask)
    now = services.update_service(request=request).result(timeout=WAIT)
    expect(now.description == "second" and now.generation == 2, now)
    expect(now.template.max_instance_request_concurrency == 9, now)
    expect(now.template.containers == old.template.containers, now)
    fails(exceptions.Conflict, lambda: services.update_service(service=old))
    now.template.containers[0].image = "hello:2"
    now = services.update_service(service=now).result(timeout=WAIT)
    expect(now.template.containers[0].image == "hello:2", now)


def allow_missing(server):
    """update with allow_missing makes a service; validate_only makes nothing"""
    services = server.client(run_v2.ServicesClient)
    other = wanted()
    other.name = f"{PARENT}/services/other"
    request = run_v2.UpdateServiceRequest(service=other, allow_missing=True, validate_only=True)
    services.update_service(request=request).result(timeout=WAIT)
    fails(exceptions.NotFound, lambda: services.get_service(name=other.name))
    request.validate_only = False
    services.update_service(request=request).result(timeout=WAIT)
    expect(services.get_service(name=other.name).uid, other.name)


def masks(server):
    """a mask with a path that is none fails; one with * replaces everything"""
    services = server.client(run_v2.ServicesClient)
    got = services.get_service(name=NAME)
    request = run_v2.UpdateServiceRequest(
        service=got, update_mask=field_mask_pb2.FieldMask(paths=["nonsense"])
    )
    error = fails(exceptions.BadRequest, lambda: services.update_service(request=request))
    expect("nonsense" in error.message, error)
    request.update_mask = field_mask_pb2.FieldMask(paths=["labels.team", "labels.other"])
    request.service.labels = {"other": "b"}
    now = services.update_service(request=request).result(timeout=WAIT)
    expect(dict(now.labels) == {"other": "b"} and now.description == got.description, now)
    request.update_mask = field_mask_pb2.FieldMask(paths=["*"])
    request.service = got
    request.service.etag = ""
    now = services.update_service(request=request).result(timeout=WAIT)
    expect(now.labels == got.labels and now.template == got.template, now)


def split(server):
    """traffic between two revisions, each with a tag"""
    services, revisions = server.client(run_v2.ServicesClient), server.client(run_v2.RevisionsClient)
    service = services.get_service(name=NAME)
    names = sorted(r.name.rsplit("/")[-1] for r in revisions.list_revisions(parent=NAME))[:2]
    by_name = run_v2.TrafficTargetAllocationType.TRAFFIC_TARGET_ALLOCATION_TYPE_REVISION
    service.traffic = [
        run_v2.TrafficTarget(type_=by_name, revision=name, percent=percent, tag=tag)
        for name, percent, tag in zip(names, (90, 10), ("blue", "green"))
    ]
    now = services.update_service(service=service).result(timeout=WAIT)
    expect([(t.revision, t.percent, t.tag) for t in now.traffic_statuses]
           == [(names[0], 90, "blue"), (names[1], 10, "green")], now.traffic_statuses)
    expect(all("---" in t.uri for t in now.traffic_statuses), now.traffic_statuses)
    now.traffic[1].percent = 20
    error = fails(exceptions.BadRequest, lambda: services.update_service(service=now))
    expect("traffic" in error.message, error)
    now.traffic = wanted().traffic
    services.update_service(service=now).result(timeout=WAIT)


def lists(server):
    """list services and revisions, page by page"""
    services = server.client(run_v2.ServicesClient)
    names = [s.name for s in services.list_services(
        request=run_v2.ListServicesRequest(parent=PARENT, page_size=1)
    )]
    expect(names == [NAME, f"{PARENT}/services/other"], names)
    revisions = server.client(run_v2.RevisionsClient)
    found = list(revisions.list_revisions(
        request=run_v2.ListRevisionsRequest(parent=NAME, page_size=1)
    ))
    expect(len(found) >= 3, [r.name for r in found])
    one = revisions.get_revision(name=found[0].name)
    expect(one == found[0], one)
    expect("@sha256:" in one.containers[0].image, one)
    latest = services.get_service(name=NAME).latest_ready_revision
    expect(latest in [r.name for r in found], latest)


def delete_revision(server):
    """delete an old revision, but not one that is needed"""
    services, revisions = server.client(run_v2.ServicesClient), server.client(run_v2.RevisionsClient)
    latest = services.get_service(name=NAME).latest_ready_revision
    fails(exceptions.BadRequest, lambda: revisions.delete_revision(name=latest))
    old = next(r.name for r in revisions.list_revisions(parent=NAME) if r.name != latest)
    revisions.delete_revision(name=old).result(timeout=WAIT)
    fails(exceptions.NotFound, lambda: revisions.get_revision(name=old))


def policy(server):
    """set, get and test the IAM policy"""
    services = server.client(run_v2.ServicesClient)
    binding = policy_pb2.Binding(role="roles/run.invoker", members=["allUsers"])
    request = iam_policy_pb2.SetIamPolicyRequest(
        resource=NAME, policy=policy_pb2.Policy(bindings=[binding])
    )
    services.set_iam_policy(request=request)
    got = services.get_iam_policy(request=iam_policy_pb2.GetIamPolicyRequest(resource=NAME))
    expect(list(got.bindings) == [binding], got)
    # With the etag that came with it, it is set again; a second time the etag is old.
    request = iam_policy_pb2.SetIamPolicyRequest(resource=NAME, policy=got)
    services.set_iam_policy(request=request)
    fails(exceptions.Conflict, lambda: services.set_iam_policy(request=request))
    asked = ["run.services.get", "run.routes.invoke"]
    answer = services.test_iam_permissions(
        request=iam_policy_pb2.TestIamPermissionsRequest(resource=NAME, permissions=asked)
    )
    expect(list(answer.permissions) == asked, answer)


def operations(server):
    """get, list, wait for and delete operations"""
    services = server.client(run_v2.ServicesClient)
    operation = services.update_service(service=services.get_service(name=NAME))
    name = operation.operation.name
    expect(services.get_operation({"name": name}).done, name)
    waited = services.wait_operation({"name": name})
    if isinstance(waited, bytes):
        # The generated gRPC transport forgets to parse this answer.
        waited = operations_pb2.Operation.FromString(waited)
    expect(waited.done, waited)
    listed = services.list_operations({"name": PARENT})
    expect(name in [o.name for o in listed.operations], listed)
    services.delete_operation({"name": name})
    wrong = {"name": f"{PARENT}/operations/nothing"}
    fails(exceptions.NotFound, lambda: services.get_operation(wrong))


def errors(server):
    """errors have their classes and name their fields"""
    services = server.client(run_v2.ServicesClient)
    fails(exceptions.NotFound, lambda: services.get_service(name=f"{PARENT}/services/none"))
    fails(exceptions.Conflict, lambda: services.create_service(
        parent=PARENT, service=wanted(), service_id="hello"
    ))
    wrong = wanted()
    wrong.template.health_check_disabled = True
    wrong.template.volumes = [run_v2.Volume(name="v")]
    wrong.custom_audiences = ["https://example.com"]
    error = fails(exceptions.BadRequest, lambda: services.create_service(
        parent=PARENT, service=wrong, service_id="wrong"
    ))
    if server.transport == "rest":
        named = {v["field"] for detail in error.details for v in detail["fieldViolations"]}
    else:
        named = {v.field for detail in error.details for v in detail.field_violations}
    for field in ("template.health_check_disabled", "template.volumes", "custom_audiences"):
        expect(field in error.message and field in named, error)
    server.token, token = "wrong", server.token
    try:
        stranger = server.client(run_v2.ServicesClient)
        # Over REST the client answers a 401 by trying to renew the token, which it cannot.
        refused = RefreshError if server.transport == "rest" else exceptions.Unauthenticated
        fails(refused, lambda: stranger.get_service(name=NAME))
    finally:
        server.token = token


def delete(server):
    """delete a service and wait for its operation"""
    services = server.client(run_v2.ServicesClient)
    gone = services.delete_service(name=NAME).result(timeout=WAIT)
    expect(gone.name == NAME, gone)
    fails(exceptions.NotFound, lambda: services.get_service(name=NAME))
    fails(exceptions.NotFound, lambda: services.delete_service(name=NAME))


# Each goes on from where the one before it ended.
STORIES = [create, get, put_back, update, masks, split, allow_missing, lists, delete_revision, policy, operations, errors, delete]


def main():
    """Runs the stories over each transport; the last line is their sum."""
    passed = failed = 0
    for transport in ("rest", "grpc"):
        with Server(transport) as server:
            for story in STORIES:
                began = time.monotonic()
                try:
                    story(server)
                    passed += 1
                    word = "ok"
                except Exception:  # The next story must still be told.
                    traceback.print_exc(limit=6)
                    failed += 1
                    word = "FAIL"
                took = time.monotonic() - began
                print(f"{word} {transport} {story.__name__}: {story.__doc__} ({took:.1f} s)", flush=True)
    print(f"{passed} passed, {failed} failed, 0 skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
