"""Where the stories are told: Google's emulator, and a Lauf of their own."""

import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "events"))
from house import WAIT, Failed, Server, free_port  # pylint: disable=wrong-import-position


class Emulator:
    """Google's own, on a free port of loopback. It keeps nothing on disk."""

    def __init__(self, program):
        self.program = program
        self.port = free_port()
        self.process = None

    def start(self):
        self.process = subprocess.Popen(
            [self.program, "--host=127.0.0.1", f"--port={self.port}"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + WAIT
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise Failed(f"the emulator ended with {self.process.returncode}")
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return f"127.0.0.1:{self.port}"
            except OSError:
                time.sleep(0.1)
        raise Failed("the emulator is not ready")

    def stop(self):
        if self.process:
            # It keeps nothing, so there is nothing to end in peace.
            self.process.kill()
            self.process.wait()


class Lauf:
    """`lauf up --pubsub-emulator`, in a folder that goes with it."""

    def __init__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="lauf-sdk-pubsub-"))
        self.server = Server(self.folder)

    def start(self):
        self.server.start()
        return f"127.0.0.1:{self.server.emulator}"

    def said(self):
        """The end of what it told, for the one who reads a failure."""
        return (self.folder / "up.err").read_text()[-4000:]

    def stop(self):
        self.server.down()
        shutil.rmtree(self.folder, ignore_errors=True)
