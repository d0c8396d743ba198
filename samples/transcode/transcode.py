"""One task of a transcode job: takes its part of the source, makes H.264 and AAC of it, and publishes the result.

Which part is decided by CLOUD_RUN_TASK_INDEX and CLOUD_RUN_TASK_COUNT alone, so a task that is tried again makes the same part again;
whoever puts the parts together takes one of each index.
"""

import base64
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import urllib.request

# What the source was made with; a real job would ask ffprobe.
SECONDS = 24
RATE = 25
# Pub/Sub takes 10,000,000 bytes a request, and base64 makes four of three.
MOST = 7_000_000


def frames(index, count):
    """First frame of a part and the one after its last. The parts cover the source without gap or overlap, whatever their number."""
    if not 0 <= index < count:
        raise ValueError(f"CLOUD_RUN_TASK_INDEX {index} must be from 0 to CLOUD_RUN_TASK_COUNT - 1, {count - 1}")
    whole = SECONDS * RATE
    return index * whole // count, (index + 1) * whole // count


def command(source, first, end, result):
    """The command line of ffmpeg for these frames."""
    return [
        "ffmpeg", "-nostdin", "-hide_banner", "-loglevel", "error", "-y",
        "-ss", f"{first / RATE:.3f}", "-i", str(source), "-t", f"{(end - first) / RATE:.3f}", "-frames:v", str(end - first),
        "-vf", "scale=320:180", "-c:v", "libx264", "-preset", "veryfast", "-threads", "1", "-pix_fmt", "yuv420p",
        "-c:a", "aac", "-b:a", "64k", "-movflags", "+faststart", str(result),
    ]


def transcode(source, index, count):
    """The bytes of a part, an MP4 file of its own."""
    first, end = frames(index, count)
    with tempfile.TemporaryDirectory() as folder:
        result = pathlib.Path(folder) / "part.mp4"
        subprocess.run(command(source, first, end, result), check=True)
        return result.read_bytes()


def message(data, index, count):
    """What is published of a part."""
    if len(data) > MOST:
        raise ValueError(f"part {index} has {len(data)} bytes, and a message takes {MOST}: run the job with more tasks")
    return {"data": base64.b64encode(data).decode(), "attributes": {"part": str(index), "parts": str(count)}}


def publish(host, topic, body):
    """Publishes over REST; an error ends the task, which is then tried again."""
    request = urllib.request.Request(
        f"http://{host}/v1/{topic}:publish",
        data=json.dumps({"messages": [body]}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        answer.read()


def main(arguments):
    index = int(os.environ.get("CLOUD_RUN_TASK_INDEX", "0"))
    count = int(os.environ.get("CLOUD_RUN_TASK_COUNT", "6"))
    source = pathlib.Path(__file__).with_name("source.mkv")
    data = transcode(source, index, count)
    if "--dry-run" not in arguments:
        publish(os.environ["PUBSUB_EMULATOR_HOST"], os.environ["TOPIC"], message(data, index, count))
    first, end = frames(index, count)
    print(f"part {index} of {count}: {end - first} frames from {first}, {len(data)} bytes", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
