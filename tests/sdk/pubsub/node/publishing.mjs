// Publishing: what a message may be, batches, and ordering keys that fail.

import { expect, fails } from './world.mjs';

const MOST = 10_000_000;

export async function the_client_sends_batches(world) {
  const [{ name }, subscription] = await world.pair();
  const topic = world.pubsub.topic(name, { batching: { maxMessages: 50, maxMilliseconds: 50 } });
  const sent = await Promise.all(
    Array.from({ length: 500 }, (_, n) => topic.publishMessage({ data: Buffer.from(`m${n}`), attributes: { n: `${n}` } })),
  );
  expect('ids', new Set(sent).size, 500);
  const got = new Map();
  await world.receive(subscription, (message) => {
    message.ack();
    got.set(message.id, message);
    return got.size === 500;
  });
  expect('ids that came', [...got.keys()].sort(), sent.sort());
  expect('attributes', [...got.values()].every(({ data, attributes }) => `${data}` === `m${attributes.n}`), true);
}

export async function a_message_arrives_as_it_was_sent(world) {
  const [topic, subscription] = await world.pair();
  const data = Buffer.from([0, 255, 1]);
  const [id] = await world.publish(topic, { data, attributes: { k: 'v', é: 'ü' }, orderingKey: 'key' });
  await world.receive(subscription, (message) => {
    message.ack();
    expect('id', message.id, id);
    expect('data', message.data, data);
    expect('attributes', { ...message.attributes }, { k: 'v', é: 'ü' });
    expect('key', message.orderingKey, 'key');
    expect('a time', Number.isFinite(message.publishTime.getTime()), true);
    return true;
  });
}

export async function the_largest_message_is_taken(world) {
  expect('ids', (await world.publish(await world.topic(), { data: Buffer.alloc(MOST, 'x') })).length, 1);
}

export async function a_byte_more_is_refused(world) {
  await fails('InvalidArgument', '10,000,001 bytes', world.publish(await world.topic(), { data: Buffer.alloc(MOST + 1, 'x') }));
}

export async function an_empty_message_is_refused(world) {
  const topic = await world.topic();
  await fails('InvalidArgument', 'empty', world.publish(topic, {}));
  await fails('InvalidArgument', 'by the client', topic.publishMessage({ data: Buffer.alloc(0) }));
}

export async function a_thousand_messages_at_once_are_taken(world) {
  expect('ids', (await world.publish(await world.topic(), ...Array(1000).fill('x'))).length, 1000);
}

export async function one_message_more_is_refused(world) {
  await fails('InvalidArgument', '1001 messages', world.publish(await world.topic(), ...Array(1001).fill('x')));
}

export async function attributes_over_their_limits_are_refused(world) {
  const topic = await world.topic();
  const data = Buffer.from('x');
  const many = Object.fromEntries(Array.from({ length: 101 }, (_, n) => [`k${n}`, 'v']));
  await fails('InvalidArgument', '101 attributes', world.publish(topic, { data, attributes: many }));
  await fails('InvalidArgument', 'a key of 257 bytes', world.publish(topic, { data, attributes: { ['k'.repeat(257)]: 'v' } }));
  await fails('InvalidArgument', 'a value of 1025 bytes', world.publish(topic, { data, attributes: { k: 'v'.repeat(1025) } }));
}

export async function what_waits_behind_a_failed_message_of_its_key_fails_too(world) {
  const topic = world.pubsub.topic(world.id(), { messageOrdering: true, batching: { maxMessages: 1 } });
  const publish = (data, orderingKey) => topic.publishMessage({ data: Buffer.from(data), orderingKey });
  const both = [publish('1', 'k'), publish('2', 'k')];
  // The second is never sent.
  await Promise.all(both.map((sent, n) => fails('NotFound', `message ${n + 1}`, sent)));
  await topic.create();
  const subscription = await world.subscription(topic, { enableMessageOrdering: true });
  topic.resumePublishing('k');
  await publish('3', 'k');
  expect('messages', await world.take(subscription), ['3']);
  await world.nothing(subscription);
}
