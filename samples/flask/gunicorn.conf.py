"""One process and eight threads: what Cloud Run's own guide advises for one CPU."""

import json
import os

bind = f"0.0.0.0:{os.environ.get('PORT', '8080')}"
workers = 1
threads = 8
# The platform decides how long a request may take.
timeout = 0
# Cloud Run kills ten seconds after the SIGTERM.
graceful_timeout = 9
# The heartbeat file belongs in memory.
worker_tmp_dir = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
preload_app = True
# Nobody administers an instance from inside, and its folder is not writable.
control_socket_disable = True
loglevel = "warning"


def when_ready(server):
    """Says in one structured line that the port is open."""
    print(json.dumps({"severity": "INFO", "message": f"listening on {bind}"}), flush=True)


def on_exit(server):
    """Says in one structured line that the instance goes."""
    print(json.dumps({"severity": "INFO", "message": "stopped"}), flush=True)
