#!/usr/bin/env python3
"""Tells the stories of this folder to the Pub/Sub that PUBSUB_EMULATOR_HOST names; of each, one line of JSON: {"story", "error"}.

    PUBSUB_EMULATOR_HOST=127.0.0.1:8085 tests/sdk/pubsub/python/tell.py [BEGINNING OF A STORY'S NAME]...
"""

import concurrent.futures
import json
import sys
import traceback

import access
import ordering
import publishing
import pulling
import pushing
import schemas
import seeking
import streaming
import subscriptions
import topics
from world import Failed, World

# They wait more than they work.
AT_ONCE = 12
# Those that wait longest begin first.
PARTS = [streaming, pulling, pushing, ordering, seeking, publishing, schemas, subscriptions, topics, access]


def tell(story):
    """What is wrong in the end, if anything."""
    try:
        story(World())
    except Failed as error:
        return str(error)
    except Exception as error:  # pylint: disable=broad-except
        last = traceback.extract_tb(error.__traceback__)
        where = [frame for frame in last if "/pubsub/python/" in frame.filename][-1]
        return f"{type(error).__name__}: {error} at {where.name}:{where.lineno}"
    return None


def main(beginnings):
    stories = [story for part in PARTS for story in part.STORIES]
    if beginnings:
        stories = [story for story in stories if story.__name__.startswith(beginnings)]
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        told = {pool.submit(tell, story): story for story in stories}
        for future in concurrent.futures.as_completed(told):
            line = {"story": told[future].__name__, "error": future.result()}
            print(json.dumps(line, ensure_ascii=False), flush=True)


if __name__ == "__main__":
    main(tuple(sys.argv[1:]))
