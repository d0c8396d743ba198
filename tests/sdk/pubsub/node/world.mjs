// The client of one story as its users make it, and short ways to say what happens.

import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import path from 'node:path';
import process from 'node:process';

// Each client would look for the metadata server of Google's machines otherwise, for seconds.
process.env.METADATA_SERVER_DETECTION = 'none';
const load = createRequire(path.join(path.resolve(process.argv[2]), 'x.js'));
export const { PubSub, v1 } = load('@google-cloud/pubsub');

// Nothing that comes takes that long; what never comes, in a place that is known for it, is not waited for as long.
export const WAIT = Number(process.env.PATIENCE ?? 60) * 1000;
// google.rpc.Code.
export const CODES = [
  'Ok', 'Cancelled', 'Unknown', 'InvalidArgument', 'DeadlineExceeded', 'NotFound', 'AlreadyExists', 'PermissionDenied', 'ResourceExhausted',
  'FailedPrecondition', 'Aborted', 'OutOfRange', 'Unimplemented', 'Internal', 'Unavailable', 'DataLoss', 'Unauthenticated',
];

let worlds = 0;

/** Names that nothing else has, and clients that close with the story. */
export class World {
  constructor() {
    this.mark = `node-${process.pid}-${Math.floor(Date.now() / 1000)}-${++worlds}`;
    this.count = 0;
    this.pubsub = new PubSub({ projectId: 'demo' });
    this.open = [];
  }

  async close() {
    await Promise.allSettled(this.open.map((subscription) => subscription.close()));
    await this.pubsub.close().catch(() => {});
  }

  /** The short form of a name, which this client completes. */
  id() {
    return `${this.mark}-${++this.count}`;
  }

  /** The plain API, without the client's own checks and batches. */
  async plain(Kind) {
    const options = await this.pubsub.getClientConfig();
    return (this[Kind] ??= new v1[Kind]({ ...options }));
  }

  async topic(settings = {}) {
    const [topic] = await this.pubsub.createTopic({ name: this.id(), ...settings });
    return topic;
  }

  async subscription(topic, settings = {}) {
    const [subscription] = await topic.createSubscription(this.id(), settings);
    return subscription;
  }

  /** A topic and a subscription of it. */
  async pair(settings = {}) {
    const topic = await this.topic();
    return [topic, await this.subscription(topic, settings)];
  }

  /** Publishes in one request; text stands for a message of it. */
  async publish(topic, ...messages) {
    const publisher = await this.plain('PublisherClient');
    messages = messages.map((message) => (typeof message === 'string' ? { data: Buffer.from(message) } : message));
    const [answer] = await publisher.publish({ topic: topic.name ?? topic, messages });
    return answer.messageIds;
  }

  /** Pulls until there are `count` messages. */
  async pull(subscription, count = 1) {
    const subscriber = await this.plain('SubscriberClient');
    const got = [];
    for (const deadline = Date.now() + WAIT; got.length < count && Date.now() < deadline; ) {
      const asked = { subscription: subscription.name, maxMessages: count - got.length };
      const [answer] = await subscriber.pull(asked, { timeout: 5000 }).catch((error) => {
        if (CODES[error.code] !== 'DeadlineExceeded') throw error;
        return [{ receivedMessages: [] }];
      });
      got.push(...answer.receivedMessages);
    }
    expect('number of messages', got.length, count);
    return got;
  }

  /** Pulls and acknowledges; gives the messages' data in order. */
  async take(subscription, count = 1) {
    const got = await this.pull(subscription, count);
    await this.ack(subscription, got);
    return got.map(({ message }) => `${message.data}`).sort();
  }

  /** There is no message now. */
  async nothing(subscription) {
    const subscriber = await this.plain('SubscriberClient');
    const [answer] = await subscriber.pull({ subscription: subscription.name, maxMessages: 10, returnImmediately: true });
    expect('messages', answer.receivedMessages.map(({ message }) => `${message.data}`), []);
  }

  async ack(subscription, got) {
    const subscriber = await this.plain('SubscriberClient');
    await subscriber.acknowledge({ subscription: subscription.name, ackIds: got.map(({ ackId }) => ackId) });
  }

  async lease(subscription, got, ackDeadlineSeconds) {
    const subscriber = await this.plain('SubscriberClient');
    const ackIds = got.map(({ ackId }) => ackId);
    await subscriber.modifyAckDeadline({ subscription: subscription.name, ackIds, ackDeadlineSeconds });
  }

  /** Gives a subscription's messages to `each` until that says that it has seen enough. */
  async receive(subscription, each, options = {}) {
    subscription = this.pubsub.subscription(subscription.name ?? subscription, options);
    this.open.push(subscription);
    await within(
      new Promise((done, failed) => {
        subscription.on('error', failed);
        subscription.on('message', (message) => {
          Promise.resolve(each(message)).then((enough) => enough && done(), failed);
        });
      }),
      'enough messages',
    );
    await subscription.close();
  }
}

/** A promise, but not forever. */
export async function within(promise, what) {
  let timer;
  const late = new Promise((_, failed) => {
    timer = setTimeout(() => failed(new Error(`${what} did not come`)), WAIT);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

export function expect(what, got, wanted) {
  try {
    assert.deepEqual(got, wanted);
  } catch {
    throw new Error(`${what}: got ${JSON.stringify(got)}, wanted ${JSON.stringify(wanted)}`);
  }
}

/** A call that must end in an error of that code. */
export async function fails(code, what, call) {
  const error = await call.then(() => null, (error) => error);
  if (!error) throw new Error(`${what}: accepted, wanted ${code}`);
  if (CODES[error.code] !== code) throw new Error(`${what}: ${CODES[error.code]} (${error.message}), wanted ${code}`);
  return error;
}
