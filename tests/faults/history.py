"""What happened, line by line, as those tell it who publish, subscribe, ask and are called: never the server.

What is asked for is told before it is asked, what was answered after the answer came, so that whatever is killed in between is
neither believed nor denied. A line is `SECONDS WORD ...`; without the seconds:

    rules SUB TOPIC [PROMISE ...]              a subscription that was there before all messages, and what it promises:
        exactly-once   nothing comes after its acknowledgement was confirmed
        ordered        the messages of a key come first in the order of their publishing, and those given back before later ones
        one-by-one     none of a key comes before its subscriber is done with all earlier ones
        in-sessions    in one session those of a key come in their order, each once
    session SUB                                its subscriber knows of nothing any more that it has and is not done with
    kill N               up N                  the server is killed, is there again
    send TOPIC KEY N     sent TOPIC KEY N ID   a publish is asked for, was acknowledged; N and ID grow in a key; `-` is none
    got SUB KEY N ID                           a subscriber got a message
    nack SUB KEY N ID                          it gives it back, or refuses it
    acking SUB KEY N ID  acked SUB KEY N ID    it says that it is done, was told that this counts
    ask JOB N            asked JOB N           a run of a scheduled job is asked for, was promised
    ran JOB                                    a run came
    add TASK             added TASK            an HTTP task is asked for, was accepted
    did TASK                                   it came, and was answered well
    make KIND NAME       made KIND NAME        something is created, was answered for
    drop KIND NAME       dropped KIND NAME     it is deleted, was answered for
    there KIND NAME                            it is there after all kills
    execution NAME TASKS                       an execution of so many tasks is there
    state NAME TASK STATE RETRIED              what the API says of one of its tasks
    ended NAME SUCCEEDED FAILED CANCELLED      what the API says of its end
    begin NAME TASK ATTEMPT NONCE              an attempt ran, in a process known by its nonce; told after all kills
"""

import threading
import time


class History:
    """Lines in the order in which they were told, on disk as soon as told."""

    def __init__(self, path):
        self.path = path
        self.began = time.monotonic()
        self.lock = threading.Lock()
        self.told = []
        self.file = open(path, "w", buffering=1, encoding="utf-8")

    def tell(self, *words):
        """One thing that happened."""
        with self.lock:
            words = tuple(str(word) for word in words)
            self.told.append(words)
            self.file.write(f"{time.monotonic() - self.began:.3f} {' '.join(words)}\n")

    def lines(self):
        """All that was told until now."""
        with self.lock:
            return list(self.told)


def read(path):
    """The lines of a history on disk."""
    with open(path, encoding="utf-8") as file:
        return [tuple(line.split()[1:]) for line in file]
