"""The guestbook as a browser and as a program see it."""

import unittest

import guestbook


class GuestbookTest(unittest.TestCase):
    def setUp(self):
        guestbook._entries.clear()
        self.client = guestbook.app.test_client()

    def test_what_is_signed_is_shown_and_escaped(self):
        answer = self.client.post("/", data={"name": "Ann", "text": "<b>hello</b>"})
        self.assertEqual(answer.status_code, 303)
        page = self.client.get("/").text
        self.assertIn("Ann", page)
        self.assertIn("&lt;b&gt;hello&lt;/b&gt;", page)

    def test_the_api_names_the_field_that_is_wrong(self):
        answer = self.client.post("/api/entries", json={"name": "Ann", "text": " "})
        self.assertEqual(answer.status_code, 400)
        self.assertIn("text must be", answer.json["error"])
        self.assertEqual(self.client.post("/api/entries", data="x").status_code, 400)
        self.assertEqual(self.client.post("/api/entries", json={"name": "A", "text": "b"}).status_code, 201)
        self.assertEqual(len(self.client.get("/api/entries").json), 1)


if __name__ == "__main__":
    unittest.main()
