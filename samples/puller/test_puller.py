"""The worker with messages and a publisher that are played."""

import concurrent.futures
import json
import unittest

import puller


class Message:
    message_id = "1"

    def __init__(self, data, **attributes):
        self.data, self.attributes, self.end = data, attributes, None

    def ack(self):
        self.end = "ack"

    def nack(self):
        self.end = "nack"


class PullerTest(unittest.TestCase):
    def setUp(self):
        self.published = []
        self.error = None
        self.worker = puller.Worker(self.publish)

    def publish(self, data, **attributes):
        future = concurrent.futures.Future()
        if self.error:
            future.set_exception(self.error)
        else:
            self.published.append((json.loads(data), attributes))
            future.set_result("id")
        return future

    def test_words_are_counted_whatever_their_case(self):
        self.assertEqual(puller.count("One fish, two FISH; über"), {"one": 1, "fish": 2, "two": 1, "über": 1})
        self.assertEqual(puller.count(" .,"), {})

    def test_a_message_is_acknowledged_when_its_result_is_out(self):
        message = Message(b"a b a", id="7")
        self.worker.take(message)
        self.assertEqual(self.published, [({"a": 2, "b": 1}, {"id": "7"})])
        self.assertEqual(message.end, "ack")

    def test_it_is_given_back_when_the_result_cannot_be_published(self):
        self.error = OSError("gone")
        message = Message(b"a", id="7")
        self.worker.take(message)
        self.assertEqual(message.end, "nack")

    def test_a_message_that_nobody_can_use_does_not_come_for_ever(self):
        message = Message(b"a")
        self.worker.take(message)
        self.assertEqual((message.end, self.published), ("ack", []))


if __name__ == "__main__":
    unittest.main()
