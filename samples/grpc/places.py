"""Places and distances; nothing here knows gRPC."""

import math

PLACES = [
    ("Hamburg", 53.5511, 9.9937),
    ("Berlin", 52.5200, 13.4050),
    ("Leipzig", 51.3397, 12.3731),
    ("Dresden", 51.0504, 13.7373),
    ("Köln", 50.9375, 6.9603),
    ("Frankfurt", 50.1109, 8.6821),
    ("Nürnberg", 49.4521, 11.0767),
    ("Stuttgart", 48.7758, 9.1829),
    ("München", 48.1351, 11.5820),
    ("Freiburg", 47.9990, 7.8421),
]

EARTH_KM = 6371.0


def distance_km(a, b):
    """The way over the globe between two (latitude, longitude) pairs."""
    lat_a, lon_a, lat_b, lon_b = map(math.radians, (*a, *b))
    h = (
        math.sin((lat_b - lat_a) / 2) ** 2
        + math.cos(lat_a) * math.cos(lat_b) * math.sin((lon_b - lon_a) / 2) ** 2
    )
    return 2 * EARTH_KM * math.asin(math.sqrt(h))


def nearest(point):
    """The place nearest to a point, and how far it is."""
    name, lat, lon = min(PLACES, key=lambda place: distance_km(point, place[1:]))
    return name, lat, lon, distance_km(point, (lat, lon))


def within(north_west, south_east):
    """The places in an area, from north to south."""
    return [
        place
        for place in PLACES
        if south_east[0] <= place[1] <= north_west[0] and north_west[1] <= place[2] <= south_east[1]
    ]
