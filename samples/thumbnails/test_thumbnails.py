"""Pushes as Pub/Sub sends them, and what is published."""

import base64
import io
import json
import unittest

from PIL import Image

import thumbnails


def image(size, form="PNG"):
    file = io.BytesIO()
    Image.new("RGB", size, "teal").save(file, form)
    return file.getvalue()


def push(data, number="7"):
    return json.dumps({"message": {"data": base64.b64encode(data).decode(), "attributes": {"id": number}}}).encode()


class ThumbnailsTest(unittest.TestCase):
    def setUp(self):
        self.published = []

    def handle(self, body):
        return thumbnails.handle(body, lambda number, data: self.published.append((number, data)))

    def test_an_image_gets_a_thumbnail_of_its_shape(self):
        for size, form, small in [((320, 240), "PNG", (64, 48)), ((240, 320), "JPEG", (48, 64)), ((20, 10), "PNG", (20, 10))]:
            self.published.clear()
            self.assertEqual(self.handle(push(image(size, form))), 204)
            [(number, data)] = self.published
            with Image.open(io.BytesIO(data)) as found:
                self.assertEqual((number, found.size, found.format), ("7", small, "JPEG"))

    def test_what_is_no_image_does_not_come_for_ever(self):
        for body in [push(b"text"), push(image((64, 64))[:60]), b"{}", b"[]", b"not json", b'{"message": {"data": "!", "attributes": {"id": "1"}}}']:
            self.assertEqual(self.handle(body), 204)
        self.assertEqual(self.published, [])

    def test_a_result_that_could_not_be_published_comes_again(self):
        def refuse(number, data):
            raise OSError("gone")

        self.assertEqual(thumbnails.handle(push(image((9, 9))), refuse), 500)


if __name__ == "__main__":
    unittest.main()
