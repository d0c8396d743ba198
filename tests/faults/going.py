"""Something that is done again and again in a thread of its own, until it is told to end."""

import threading
import traceback


class Going:
    """Calls `step` without a pause of its own. What it raises ends it, and is kept for the end of the story."""

    def __init__(self, name, step):
        self.name, self.step = name, step
        self.ending = threading.Event()
        self.error = None
        self.thread = threading.Thread(target=self.work, name=name, daemon=True)
        self.thread.start()

    def work(self):
        """The thread."""
        try:
            while not self.ending.is_set():
                self.step()
        except Exception:  # Told at the end: a load that stopped proves nothing.
            self.error = traceback.format_exc(limit=6)

    def end(self, seconds):
        """Waits for the step that is being done."""
        self.ending.set()
        self.thread.join(seconds)
        if self.thread.is_alive() and not self.error:
            self.error = f"does not end within {seconds} s"
