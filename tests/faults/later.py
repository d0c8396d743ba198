"""Doing things a little later, in one thread, without keeping those waiting who ask for it."""

import heapq
import itertools
import threading
import time


class Later:
    """Calls what it is given when its time has come."""

    def __init__(self):
        self.due, self.count = [], itertools.count()
        self.changed = threading.Condition()
        threading.Thread(target=self.work, name="later", daemon=True).start()

    def after(self, seconds, call):
        """Calls after so many seconds."""
        with self.changed:
            heapq.heappush(self.due, (time.monotonic() + seconds, next(self.count), call))
            self.changed.notify()

    def work(self):
        """The thread."""
        while True:
            with self.changed:
                while not self.due or self.due[0][0] > time.monotonic():
                    self.changed.wait(self.due[0][0] - time.monotonic() if self.due else None)
                call = heapq.heappop(self.due)[2]
            call()
