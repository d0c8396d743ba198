"""The judge finds each breach: for each a small history that is red because of it, and those like it that are not."""

import unittest

from judge import judge

ALL = "rules s t exactly-once ordered one-by-one\n"
SENT = "send t k 1\nsent t k 1 11\nsend t k 2\nsent t k 2 12\n"


def breaches(text):
    """The kinds of breaches of a history."""
    lines = [tuple(line.split()) for line in text.splitlines() if line.strip()]
    return [breach.split(":")[0] for breach in judge(lines)]


def done(key, number, identity):
    """A message comes and is acknowledged."""
    return f"got s {key} {number} {identity}\nacking s {key} {number} {identity}\nacked s {key} {number} {identity}\n"


class Messages(unittest.TestCase):
    """Pub/Sub."""

    def red(self, kind, text):
        self.assertEqual(breaches(text), [kind])

    def green(self, text):
        self.assertEqual(breaches(text), [])

    def test_all_is_well(self):
        self.green(ALL + SENT + done("k", 1, "11") + done("k", 2, "12"))

    def test_an_acknowledged_publish_never_comes(self):
        self.red("lost", ALL + SENT + done("k", 1, "11"))

    def test_it_must_come_to_every_subscription(self):
        self.red("lost", ALL + "rules r t\nsend t - 1\nsent t - 1 11\n" + done("-", 1, "11"))

    def test_the_copy_that_was_acknowledged_must_come(self):
        self.red("lost", ALL + "send t - 1\nsent t - 1 12\n" + done("-", 1, "earlier"))

    def test_what_is_given_back_comes_again(self):
        self.red("lost", "rules s t\nsend t - 1\nsent t - 1 11\ngot s - 1 11\nnack s - 1 11\n")
        self.green("rules s t\nsend t - 1\nsent t - 1 11\ngot s - 1 11\nnack s - 1 11\n" + done("-", 1, "11"))

    def test_a_copy_of_what_is_done_may_be_given_back(self):
        self.green("rules s t\nsend t - 1\nsent t - 1 11\n" + done("-", 1, "11") + "got s - 1 11\nnack s - 1 11\n")

    def test_a_publish_without_an_answer_may_come_or_not(self):
        self.green(ALL + "send t k 1\n")
        self.green(ALL + "send t k 1\n" + done("k", 1, "11"))

    def test_nobody_published_it(self):
        self.red("unpublished", ALL + done("-", 1, "11"))

    def test_again_after_its_acknowledgement_was_confirmed(self):
        self.red("again", ALL + "send t - 1\n" + done("-", 1, "11") + "got s - 1 11\n")

    def test_again_after_an_acknowledgement_without_answer(self):
        self.green(ALL + "send t - 1\ngot s - 1 11\nacking s - 1 11\ngot s - 1 11\n")

    def test_again_where_nobody_promised_once(self):
        self.green("rules s t\nsend t - 1\n" + done("-", 1, "11") + "got s - 1 11\n")

    def test_a_later_one_first(self):
        self.red("out of order", ALL + SENT + done("k", 2, "12") + done("k", 1, "11"))

    def test_a_later_one_before_the_earlier_is_acknowledged(self):
        text = SENT + "got s k 1 11\n" + done("k", 2, "12") + "acking s k 1 11\n"
        self.red("too early", ALL + text)
        self.green("rules s t exactly-once ordered\n" + text)

    def test_the_earlier_one_comes_again_and_is_passed(self):
        self.red("too early", ALL + SENT + "got s k 1 11\nacking s k 1 11\ngot s k 1 11\n" + done("k", 2, "12") + "acking s k 1 11\n")

    def test_the_earlier_one_is_given_back_and_passed(self):
        self.red("out of order", "rules s t ordered\n" + SENT + "got s k 1 11\nnack s k 1 11\n" + done("k", 2, "12") + done("k", 1, "11"))

    def test_an_earlier_one_again_in_one_session(self):
        text = "rules s t in-sessions\n" + SENT + done("k", 1, "11") + done("k", 2, "12")
        self.red("backwards", text + done("k", 1, "11"))
        self.red("backwards", text + done("k", 2, "12"))
        self.green(text + "session s\n" + done("k", 1, "11") + done("k", 2, "12"))

    def test_a_topic_has_them_in_another_order_than_its_publisher(self):
        self.red("misplaced", "send t k 1\nsend t k 2\nsent t k 1 12\nsent t k 2 11\n")
        self.green("send t k 1\nsent t k 1 0\n")
        self.green("send t - 1\nsend t - 2\nsent t - 1 12\nsent t - 2 11\n")

    def test_the_later_one_comes_before_the_answer_to_the_publisher_of_the_earlier(self):
        self.red("out of order", ALL + "send t k 1\nsend t k 2\n" + done("k", 2, "12") + "sent t k 1 11\nsent t k 2 12\n"
                 + done("k", 1, "11"))

    def test_repeats_from_the_first_that_is_not_acknowledged(self):
        self.green(ALL + SENT + "got s k 1 11\nacking s k 1 11\ngot s k 2 12\nkill 1\n" + done("k", 1, "11") + done("k", 2, "12"))

    def test_keys_do_not_wait_for_each_other(self):
        self.green(ALL + SENT + "send t l 1\nsent t l 1 21\ngot s k 1 11\n" + done("l", 1, "21") + "acking s k 1 11\n" + done("k", 2, "12"))

    def test_without_a_key_or_the_promise_there_is_no_order(self):
        self.green(ALL + (SENT + done("k", 2, "12") + done("k", 1, "11")).replace(" k ", " - "))
        self.green("rules s t\n" + SENT + done("k", 2, "12") + done("k", 1, "11"))


class Calls(unittest.TestCase):
    """Scheduler, Tasks, and what was created."""

    red, green = Messages.red, Messages.green

    def test_a_promised_run_never_comes(self):
        self.red("forgotten", "ask j 1\nasked j 1\n")
        self.green("ask j 1\nran j\nasked j 1\n")

    def test_the_run_before_does_not_count(self):
        self.red("forgotten", "ask j 1\nran j\nasked j 1\nask j 2\nasked j 2\n")

    def test_a_run_without_an_answer_may_come_or_not(self):
        self.green("ask j 1\n")

    def test_nobody_asked_the_job(self):
        self.red("unasked", "ran j\n")

    def test_an_accepted_task_is_never_done(self):
        self.red("lost", "add x\nadded x\n")
        self.green("add x\nadded x\ndid x\ndid x\n")
        self.green("add x\n")

    def test_nobody_added_the_task(self):
        self.red("unasked", "did x\n")

    def test_what_was_created_is_gone(self):
        self.red("lost", "make topic x\nmade topic x\nmake queue x\nmade queue x\nthere queue x\n")
        self.green("make topic x\nmade topic x\ndrop topic x\n")
        self.green("make topic x\n")

    def test_what_was_deleted_is_there(self):
        self.red("undead", "make topic x\nmade topic x\ndrop topic x\ndropped topic x\nthere topic x\n")

    def test_nobody_created_it(self):
        self.red("unasked", "there topic x\n")


class Executions(unittest.TestCase):
    """Jobs."""

    red, green = Messages.red, Messages.green
    RUN = "execution e 2\nbegin e 0 0 n0\nbegin e 1 0 n1\n"

    def test_all_is_well(self):
        self.green(self.RUN + "begin e 1 1 n2\nstate e 0 Succeeded 0\nstate e 1 Running 1\nstate e 1 Succeeded 1\nended e 2 0 0\n")

    def test_it_never_ends(self):
        self.red("unfinished", self.RUN)

    def test_it_ends_with_too_few(self):
        self.red("miscounted", self.RUN + "ended e 1 0 0\n")

    def test_it_ends_with_one_failed(self):
        self.red("miscounted", self.RUN + "ended e 2 1 0\n")

    def test_its_end_changes(self):
        self.red("miscounted", self.RUN + "ended e 2 0 0\nended e 1 1 0\n")

    def test_a_task_never_runs(self):
        self.red("not run", "execution e 2\nbegin e 0 0 n0\nended e 2 0 0\n")

    def test_an_attempt_runs_twice(self):
        self.red("ran twice", self.RUN + "begin e 1 0 n3\nended e 2 0 0\n")

    def test_a_line_read_twice_is_not_two(self):
        self.green(self.RUN + self.RUN + "ended e 2 0 0\n")

    def test_a_task_runs_again_after_it_succeeded(self):
        self.red("ran again", self.RUN + "state e 1 Succeeded 0\nbegin e 1 1 n3\nended e 2 0 0\n")

    def test_a_success_is_taken_back(self):
        self.red("unsaid", self.RUN + "state e 1 Succeeded 0\nstate e 1 Running 0\nended e 2 0 0\n")
        self.red("unsaid", self.RUN + "state e 1 Succeeded 0\nstate e 1 Succeeded 1\nended e 2 0 0\n")


if __name__ == "__main__":
    unittest.main()
