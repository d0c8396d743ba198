// Receiving by a stream and by pulls: acknowledgement, leases, order, exactly-once delivery, filters, dead letters, and going back.

import { expect, fails } from './world.mjs';

export async function a_stream_keeps_what_its_user_holds(world) {
  const [topic, subscription] = await world.pair({ ackDeadlineSeconds: 10 });
  await world.publish(topic, 'held');
  let seen = 0;
  await world.receive(subscription, async (message) => {
    seen++;
    // A lease of 10 s that nobody makes longer ends in the meantime, and tells when.
    const [clock, other] = await world.pair({ ackDeadlineSeconds: 10 });
    await world.publish(clock, 'x');
    await world.pull(other);
    await world.pull(other);
    message.ack();
    return true;
  });
  expect('seen', seen, 1);
  await world.nothing(subscription);
}

export async function a_lease_that_ends_gives_the_message_to_another(world) {
  const [topic, subscription] = await world.pair({ ackDeadlineSeconds: 10 });
  await world.publish(topic, 'x');
  const [first] = await world.pull(subscription);
  const second = await world.pull(subscription);
  expect('the same', first.message.messageId, second[0].message.messageId);
  await world.ack(subscription, second);
  await world.nothing(subscription);
}

export async function a_stream_gives_messages_and_takes_acknowledgements(world) {
  const [topic, subscription] = await world.pair();
  const sent = await world.publish(topic, ...Array.from({ length: 300 }, (_, n) => `m${n}`));
  const seen = new Set();
  await world.receive(subscription, (message) => {
    message.ack();
    seen.add(message.id);
    return seen.size === 300;
  });
  expect('ids', [...seen].sort(), sent.sort());
  await world.nothing(subscription);
}

export async function what_a_stream_gives_back_comes_again(world) {
  const [topic, subscription] = await world.pair();
  await world.publish(topic, 'x');
  let times = 0;
  await world.receive(subscription, (message) => {
    if (++times < 3) {
      message.nack();
      return false;
    }
    message.ack();
    return true;
  });
  await world.nothing(subscription);
}

export async function flow_control_holds_back(world) {
  const [topic, subscription] = await world.pair();
  await world.publish(topic, ...Array(20).fill('x'));
  let [now, most, done] = [0, 0, 0];
  const each = async (message) => {
    most = Math.max(most, ++now);
    await new Promise((waited) => setTimeout(waited, 20));
    now--;
    message.ack();
    return ++done === 20;
  };
  await world.receive(subscription, each, { flowControl: { maxMessages: 3, allowExcessMessages: false } });
  expect('three at a time', most <= 3, true);
}

export async function a_stream_of_no_subscription(world) {
  await fails('NotFound', 'receive', world.receive(world.id(), () => true));
}

export async function messages_of_a_key_come_in_order(world) {
  const [{ name }, subscription] = await world.pair({ enableMessageOrdering: true });
  const topic = world.pubsub.topic(name, { messageOrdering: true });
  await Promise.all(
    Array.from({ length: 200 }, (_, n) => topic.publishMessage({ data: Buffer.from(`${n}`), orderingKey: `key-${n % 4}` })),
  );
  const seen = {};
  let count = 0;
  await world.receive(subscription, (message) => {
    (seen[message.orderingKey] ??= []).push(Number(message.data));
    message.ack();
    return ++count === 200;
  });
  for (let key = 0; key < 4; key++) {
    expect(`key-${key}`, seen[`key-${key}`], Array.from({ length: 50 }, (_, n) => n * 4 + key));
  }
}

export async function exactly_once_answers_acknowledgements(world) {
  const [topic, subscription] = await world.pair({ enableExactlyOnceDelivery: true });
  await world.publish(topic, 'x');
  await world.receive(subscription, async (message) => {
    expect('answer', await message.ackWithResponse(), 'SUCCESS');
    return true;
  });
  await world.nothing(subscription);
}

export async function exactly_once_gives_back_with_an_answer(world) {
  const [topic, subscription] = await world.pair({ enableExactlyOnceDelivery: true });
  await world.publish(topic, 'x');
  const answers = [];
  let given = 0;
  // The message may be back before the answer of giving it back is.
  await world.receive(subscription, async (message) => {
    answers.push(given++ === 0 ? await message.nackWithResponse() : await message.ackWithResponse());
    return answers.length === 2;
  });
  expect('answers', answers, ['SUCCESS', 'SUCCESS']);
}

export async function exactly_once_refuses_an_acknowledgement_that_is_too_late(world) {
  const [topic, subscription] = await world.pair({ enableExactlyOnceDelivery: true });
  await world.publish(topic, 'x');
  const stale = await world.pull(subscription);
  await world.lease(subscription, stale, 0);
  const fresh = await world.pull(subscription);
  await fails('InvalidArgument', 'stale', world.ack(subscription, stale));
  await world.ack(subscription, fresh);
  await world.nothing(subscription);
}

export async function an_ack_id_that_was_never_given_is_refused(world) {
  const [, subscription] = await world.pair();
  await fails('InvalidArgument', 'ack', world.ack(subscription, [{ ackId: 'never' }]));
  await fails('InvalidArgument', 'lease', world.lease(subscription, [{ ackId: 'never' }], 20));
}

export async function filters_select(world) {
  const topic = await world.topic();
  const some = await world.subscription(topic, { filter: 'attributes:a' });
  const [a, b] = [{ a: '1' }, { b: '2' }];
  const message = (data, attributes) => ({ data: Buffer.from(data), attributes });
  await world.publish(topic, message('a', a), message('b', b), message('both', { ...a, ...b }));
  expect('attributes:a', await world.take(some, 2), ['a', 'both']);
  await world.nothing(some);
}

export async function poison_goes_to_the_dead_letters(world) {
  const [topic, dead] = [await world.topic(), await world.topic()];
  const deadLetterPolicy = { deadLetterTopic: dead.name, maxDeliveryAttempts: 5 };
  const subscription = await world.subscription(topic, { deadLetterPolicy });
  const grave = await world.subscription(dead);
  await world.publish(topic, 'poison');
  const attempts = [];
  while (attempts.length < 5) {
    const got = await world.pull(subscription);
    attempts.push(got[0].deliveryAttempt);
    await world.lease(subscription, got, 0);
  }
  expect('attempts', attempts, [1, 2, 3, 4, 5]);
  await world.nothing(subscription);
  const [{ message }] = await world.pull(grave);
  expect('data', `${message.data}`, 'poison');
  expect('after', message.attributes.CloudPubSubDeadLetterSourceDeliveryCount, '5');
}

export async function a_retry_policy_holds_back_what_is_given_back(world) {
  const long = { seconds: 600 };
  const [topic, subscription] = await world.pair({ retryPolicy: { minimumBackoff: long, maximumBackoff: long } });
  await world.publish(topic, 'first');
  await world.lease(subscription, await world.pull(subscription), 0);
  await world.publish(topic, 'second');
  expect('next', await world.take(subscription), ['second']);
  await world.nothing(subscription);
}

export async function acknowledged_messages_come_again_from_a_time(world) {
  const [topic, subscription] = await world.pair({ retainAckedMessages: true });
  await world.publish(topic, 'a', 'b');
  const got = await world.pull(subscription, 2);
  await world.ack(subscription, got);
  await world.nothing(subscription);
  await subscription.seek(new Date((Number(got[0].message.publishTime.seconds) - 1) * 1000));
  expect('again', await world.take(subscription, 2), ['a', 'b']);
}

export async function a_snapshot_brings_back_what_it_saw(world) {
  const [topic, subscription] = await world.pair();
  await world.publish(topic, 'seen');
  const [snapshot] = await subscription.createSnapshot(world.id());
  expect('taken', await world.take(subscription), ['seen']);
  await world.nothing(subscription);
  await subscription.seek(snapshot.name);
  expect('again', await world.take(subscription), ['seen']);
  await snapshot.delete();
}
