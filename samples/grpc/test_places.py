"""Distances and the nearest place."""

import unittest

import places


class PlacesTest(unittest.TestCase):
    def test_a_known_distance(self):
        self.assertAlmostEqual(places.distance_km((52.52, 13.405), (48.1351, 11.582)), 504.4, delta=1)

    def test_the_nearest_place_and_those_in_an_area(self):
        self.assertEqual(places.nearest((48.1, 11.6))[0], "München")
        names = [name for name, _, _ in places.within((54, 9), (51, 14))]
        self.assertEqual(names, ["Hamburg", "Berlin", "Leipzig", "Dresden"])


if __name__ == "__main__":
    unittest.main()
