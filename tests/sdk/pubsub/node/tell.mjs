// Tells the stories of this folder to the Pub/Sub that PUBSUB_EMULATOR_HOST names, by the unmodified @google-cloud/pubsub; of each, one line
// of JSON: {"story", "error"}.
//
//   PUBSUB_EMULATOR_HOST=127.0.0.1:8085 node tests/sdk/pubsub/node/tell.mjs NODE_MODULES [BEGINNING OF A STORY'S NAME]...
//
// NODE_MODULES is where npm put the client.

import process from 'node:process';

import { World } from './world.mjs';
import * as resources from './resources.mjs';
import * as publishing from './publishing.mjs';
import * as subscribing from './subscribing.mjs';

// They wait more than they work.
const AT_ONCE = 12;

/** What is wrong in the end, or null. */
async function tell(story) {
  const world = new World();
  try {
    await story(world);
    return null;
  } catch (error) {
    return `${error.name}: ${error.message}`;
  } finally {
    await world.close();
  }
}

const asked = process.argv.slice(3);
// Those that wait longest begin first.
const stories = [subscribing, publishing, resources]
  .flatMap((part) => Object.values(part))
  .filter(({ name }) => !asked.length || asked.some((beginning) => name.startsWith(beginning)));
await Promise.all(
  Array.from({ length: AT_ONCE }, async () => {
    for (let story = stories.shift(); story; story = stories.shift()) {
      console.log(JSON.stringify({ story: story.name, error: await tell(story) }));
    }
  }),
);
// What a story that failed has left open would keep the process alive.
process.exit(0);
