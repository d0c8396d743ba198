"""The parts of a transcode, without ffmpeg."""

import base64
import unittest

import transcode


class TranscodeTest(unittest.TestCase):
    def test_the_parts_cover_the_source_without_gap_or_overlap(self):
        for count in (1, 5, 7, 600):
            parts = [transcode.frames(index, count) for index in range(count)]
            self.assertEqual(parts[0][0], 0)
            self.assertEqual(parts[-1][1], transcode.SECONDS * transcode.RATE)
            for before, after in zip(parts, parts[1:]):
                self.assertEqual(before[1], after[0])
            self.assertTrue(all(first < end for first, end in parts))

    def test_an_index_that_is_none_is_told(self):
        with self.assertRaisesRegex(ValueError, "CLOUD_RUN_TASK_INDEX 6"):
            transcode.frames(6, 6)

    def test_a_part_is_cut_where_it_begins(self):
        words = transcode.command("in.mkv", 100, 200, "out.mp4")
        self.assertEqual(words[words.index("-ss") + 1], "4.000")
        self.assertEqual(words[words.index("-frames:v") + 1], "100")
        self.assertLess(words.index("-ss"), words.index("-i"))

    def test_a_message_says_which_part_it_is_and_is_not_too_big(self):
        body = transcode.message(b"film", 2, 6)
        self.assertEqual(base64.b64decode(body["data"]), b"film")
        self.assertEqual(body["attributes"], {"part": "2", "parts": "6"})
        with self.assertRaisesRegex(ValueError, "more tasks"):
            transcode.message(bytes(transcode.MOST + 1), 0, 1)


if __name__ == "__main__":
    unittest.main()
