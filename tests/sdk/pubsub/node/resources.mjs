// Topics, subscriptions and schemas: their life, settings and errors.

import http from 'node:http';

import { expect, fails, within } from './world.mjs';

export async function topics_live_and_die(world) {
  const topic = await world.topic({ labels: { a: 'b' } });
  const [read] = await topic.getMetadata();
  expect('read', [read.name, read.labels], [topic.name, { a: 'b' }]);
  expect('is there', (await topic.exists())[0], true);
  const list = async () => (await world.pubsub.getTopics())[0].map(({ name }) => name).filter((name) => name.includes(world.mark));
  expect('listed', await list(), [topic.name]);
  await topic.delete();
  expect('is not there', (await topic.exists())[0], false);
  expect('after', await list(), []);
}

export async function a_topic_is_made_once(world) {
  const topic = await world.topic();
  await fails('AlreadyExists', 'twice', world.pubsub.createTopic(topic.name));
}

export async function a_topic_that_is_not_there(world) {
  const topic = world.pubsub.topic(world.id());
  await fails('NotFound', 'get', topic.getMetadata());
  await fails('NotFound', 'delete', topic.delete());
  await fails('NotFound', 'publish', world.publish(topic, 'x'));
  await fails('NotFound', 'publish by the client', topic.publishMessage({ data: Buffer.from('x') }));
  await fails('NotFound', 'subscribe', topic.createSubscription(world.id()));
}

export async function topics_come_in_pages(world) {
  const made = [];
  for (let n = 0; n < 5; n++) made.push((await world.topic()).name);
  const listed = [];
  for (let query = { pageSize: 2, autoPaginate: false }; query; ) {
    const [topics, next] = await world.pubsub.getTopics(query);
    expect('no more than asked', topics.length <= 2, true);
    listed.push(...topics.map(({ name }) => name));
    query = next;
  }
  expect('each once', listed.filter((name) => made.includes(name)).sort(), made.sort());
}

export async function topic_labels_are_updated(world) {
  const topic = await world.topic({ labels: { a: 'b' } });
  await topic.setMetadata({ labels: { c: 'd' } });
  expect('labels', (await topic.getMetadata())[0].labels, { c: 'd' });
}

export async function subscriptions_live_and_die(world) {
  const [topic, subscription] = await world.pair({ ackDeadlineSeconds: 20, labels: { a: 'b' } });
  const [read] = await subscription.getMetadata();
  expect('read', [read.topic, read.ackDeadlineSeconds, read.labels], [topic.name, 20, { a: 'b' }]);
  await fails('AlreadyExists', 'twice', topic.createSubscription(subscription.name));
  expect('of the topic', (await topic.getSubscriptions())[0].map(({ name }) => name), [subscription.name]);
  await subscription.delete();
  expect('after', (await topic.getSubscriptions())[0], []);
}

export async function a_subscription_that_is_not_there(world) {
  const subscription = world.pubsub.subscription(world.id());
  await fails('NotFound', 'get', subscription.getMetadata());
  await fails('NotFound', 'delete', subscription.delete());
  await fails('NotFound', 'update', subscription.setMetadata({ ackDeadlineSeconds: 20 }));
  await fails('NotFound', 'push', subscription.modifyPushConfig({}));
  await fails('NotFound', 'snapshot', subscription.createSnapshot(world.id()));
  await fails('NotFound', 'pull', world.pull(subscription));
  await fails('NotFound', 'ack', world.ack(subscription, [{ ackId: 'x' }]));
}

export async function a_subscription_outlives_its_topic(world) {
  const [topic, subscription] = await world.pair();
  await world.publish(topic, 'before');
  await topic.delete();
  expect('topic', (await subscription.getMetadata())[0].topic, '_deleted-topic_');
  expect('what was there', await world.take(subscription), ['before']);
  await fails('NotFound', 'publish', world.publish(topic, 'after'));
}

export async function ack_deadlines_have_bounds(world) {
  const topic = await world.topic();
  for (const ackDeadlineSeconds of [-1, 601]) {
    await fails('InvalidArgument', `${ackDeadlineSeconds} s`, world.subscription(topic, { ackDeadlineSeconds }));
  }
  for (const ackDeadlineSeconds of [10, 600]) {
    const [read] = await (await world.subscription(topic, { ackDeadlineSeconds })).getMetadata();
    expect('deadline', read.ackDeadlineSeconds, ackDeadlineSeconds);
  }
}

export async function only_what_the_mask_names_changes(world) {
  const [, subscription] = await world.pair({ ackDeadlineSeconds: 20, labels: { a: 'b' } });
  await subscription.setMetadata({ ackDeadlineSeconds: 30 });
  await subscription.setMetadata({ retryPolicy: { minimumBackoff: { seconds: 5 }, maximumBackoff: { seconds: 9 } } });
  const [read] = await subscription.getMetadata();
  expect('read', [read.ackDeadlineSeconds, read.labels, `${read.retryPolicy.minimumBackoff.seconds}`], [30, { a: 'b' }, '5']);
}

export async function a_detached_subscription_has_no_messages(world) {
  const [topic, subscription] = await world.pair();
  await world.publish(topic, 'x');
  await world.pubsub.detachSubscription(subscription.name);
  expect('detached', (await subscription.detached())[0], true);
  await fails('FailedPrecondition', 'pull', world.pull(subscription));
}

export async function a_subscription_turns_to_push_and_back(world) {
  const [topic, subscription] = await world.pair();
  let arrive;
  const pushed = new Promise((done) => (arrive = done));
  const endpoint = http.createServer(async (request, answer) => {
    arrive(JSON.parse(Buffer.concat(await request.toArray())));
    answer.writeHead(204).end();
  });
  await new Promise((done) => endpoint.listen(0, '127.0.0.1', done));
  try {
    const pushEndpoint = `http://127.0.0.1:${endpoint.address().port}/`;
    await subscription.modifyPushConfig({ pushEndpoint });
    expect('endpoint', (await subscription.getMetadata())[0].pushConfig.pushEndpoint, pushEndpoint);
    await world.publish(topic, 'pushed');
    const { message } = await within(pushed, 'a push');
    expect('pushed', `${Buffer.from(message.data, 'base64')}`, 'pushed');
    await subscription.modifyPushConfig({});
    await world.publish(topic, 'pulled');
    expect('pulled', await world.take(subscription), ['pulled']);
  } finally {
    endpoint.close();
    endpoint.closeAllConnections();
  }
}

/** Topics of a schema take what fits it and nothing else. */
async function hold(world, type, definition, cases) {
  const schema = await world.pubsub.createSchema(world.id(), type, definition);
  for (const [encoding, good, bad] of cases) {
    const topic = await world.topic({ schemaSettings: { schema: await schema.getName(), encoding } });
    const subscription = await world.subscription(topic);
    await topic.publishMessage({ data: good });
    await fails('InvalidArgument', `bad ${encoding}`, topic.publishMessage({ data: bad }));
    const [{ message }] = await world.pull(subscription);
    expect('schema', message.attributes.googclient_schemaname, await schema.getName());
    expect('encoding', message.attributes.googclient_schemaencoding, encoding);
  }
  await schema.delete();
}

export async function avro_holds_back_what_does_not_fit(world) {
  const definition = JSON.stringify({ type: 'record', name: 'State', fields: [{ name: 'name', type: 'string' }] });
  await hold(world, 'AVRO', definition, [
    ['JSON', Buffer.from('{"name": "Ohio"}'), Buffer.from('{"name": 1}')],
    ['BINARY', Buffer.from('\x08Ohio'), Buffer.from('\x08Oh')],
  ]);
}

export async function protobuf_holds_back_what_does_not_fit(world) {
  const definition = 'syntax = "proto3"; message State { string name = 1; int32 rank = 2; }';
  await hold(world, 'PROTOCOL_BUFFER', definition, [
    ['JSON', Buffer.from('{"name": "Ohio", "rank": 7}'), Buffer.from('{"rank": "many"}')],
    ['BINARY', Buffer.from('\x0a\x04Ohio\x10\x07', 'latin1'), Buffer.from('\x0a\x7f', 'latin1')],
  ]);
}

export async function topics_have_policies(world) {
  const { iam } = await world.topic();
  const bindings = [{ role: 'roles/pubsub.publisher', members: ['user:a@example.com'] }];
  await iam.setPolicy({ bindings });
  const [policy] = await iam.getPolicy();
  expect('members', policy.bindings.map(({ role, members }) => ({ role, members })), bindings);
  expect('permissions', (await iam.testPermissions(['pubsub.topics.publish']))[0], { 'pubsub.topics.publish': true });
}
