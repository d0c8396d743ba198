"""A journey planner over gRPC: unary, server, client and both-way streams."""

import json
import os
import signal
import sys
import threading
from concurrent import futures

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

import places
import route_pb2
import route_pb2_grpc

SERVICE = route_pb2.DESCRIPTOR.services_by_name["Route"].full_name
# Cloud Run kills ten seconds after the SIGTERM.
DRAIN_SECONDS = 9


class Route(route_pb2_grpc.RouteServicer):
    """The service; each method is one kind of call."""

    def __init__(self, revision):
        self._revision = revision

    def GetPlace(self, request, context):
        check(context, request)
        name, lat, lon, km = places.nearest((request.latitude, request.longitude))
        return self._place(name, lat, lon, km)

    def ListPlaces(self, request, context):
        check(context, request.north_west)
        check(context, request.south_east)
        corner = (request.north_west.latitude, request.north_west.longitude)
        other = (request.south_east.latitude, request.south_east.longitude)
        for name, lat, lon in places.within(corner, other):
            yield self._place(name, lat, lon, places.distance_km(corner, (lat, lon)))

    def RecordTrip(self, request_iterator, context):
        summary = route_pb2.TripSummary()
        last = None
        for point in request_iterator:
            check(context, point)
            here = (point.latitude, point.longitude)
            summary.points += 1
            if last is not None:
                summary.distance_km += places.distance_km(last, here)
            name, _, _, km = places.nearest(here)
            if km <= 25 and name not in summary.passed:
                summary.passed.append(name)
            last = here
        return summary

    def Chat(self, request_iterator, context):
        for number, note in enumerate(request_iterator):
            yield route_pb2.Note(text=note.text, number=number)

    def _place(self, name, lat, lon, km):
        point = route_pb2.Point(latitude=lat, longitude=lon)
        return route_pb2.Place(name=name, at=point, distance_km=km, revision=self._revision)


def check(context, point):
    """Ends the call when a point is not on the globe."""
    if not (-90 <= point.latitude <= 90 and -180 <= point.longitude <= 180):
        context.abort(
            grpc.StatusCode.INVALID_ARGUMENT,
            f"({point.latitude}, {point.longitude}) is not on the globe: latitude -90 to 90, longitude -180 to 180",
        )


def log(severity, message):
    """Writes one structured line, as Cloud Logging reads them."""
    print(json.dumps({"severity": severity, "message": message}), flush=True)


def main():
    """Serves until a SIGTERM, then finishes the calls in progress."""
    port = int(os.environ.get("PORT", "8080"))
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=16), options=[("grpc.so_reuseport", 0)])
    route_pb2_grpc.add_RouteServicer_to_server(Route(os.environ.get("K_REVISION", "local")), server)
    checks = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    reflection.enable_server_reflection(
        (SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), server
    )
    server.add_insecure_port(f"0.0.0.0:{port}")

    asked_to_stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: asked_to_stop.set())
    states = health_pb2.HealthCheckResponse
    state = states.SERVING

    def announce():
        for name in ("", SERVICE):
            checks.set(name, state)

    def turn(*_):
        """SIGUSR1 takes the server out of service and back, as an operator would for maintenance."""
        nonlocal state
        state = states.NOT_SERVING if state == states.SERVING else states.SERVING
        announce()

    signal.signal(signal.SIGUSR1, turn)
    server.start()
    announce()
    log("INFO", f"listening on port {port}")

    asked_to_stop.wait()
    log("INFO", "finishing the calls in progress")
    checks.enter_graceful_shutdown()
    server.stop(DRAIN_SECONDS).wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
