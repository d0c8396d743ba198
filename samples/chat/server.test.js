'use strict';

const test = require('node:test');
const assert = require('node:assert');
const { WebSocket } = require('ws');
const { makeServer } = require('./server.js');

/** Joins a room and returns a way to speak and to hear the next message. */
function join(port, room, name) {
  const socket = new WebSocket(`ws://127.0.0.1:${port}/ws?room=${room}&name=${name}`);
  const heard = [];
  const waiting = [];
  socket.on('message', (data) => {
    const message = JSON.parse(data.toString());
    if (waiting.length) waiting.shift()(message);
    else heard.push(message);
  });
  return {
    say: (text) => socket.send(JSON.stringify({ text })),
    next: () => (heard.length ? Promise.resolve(heard.shift()) : new Promise((resolve) => waiting.push(resolve))),
  };
}

async function withServer(story) {
  const server = makeServer();
  await new Promise((ready) => server.listen(0, '127.0.0.1', ready));
  try {
    await story(server.address().port);
  } finally {
    await new Promise((done) => server.stop(done));
  }
}

test('what one says in a room, the others in it hear, and nobody elsewhere', () => withServer(async (port) => {
  const ann = join(port, 'garden', 'Ann');
  assert.deepStrictEqual((await ann.next()).people, []);
  assert.deepStrictEqual(await ann.next(), { kind: 'joined', name: 'Ann' });
  const cat = join(port, 'kitchen', 'Cat');
  assert.strictEqual((await cat.next()).kind, 'welcome');
  assert.strictEqual((await cat.next()).name, 'Cat');
  const bob = join(port, 'garden', 'Bob');
  assert.deepStrictEqual((await bob.next()).people, ['Ann']);
  assert.strictEqual((await ann.next()).name, 'Bob');
  assert.strictEqual((await bob.next()).name, 'Bob');
  ann.say('hello');
  assert.strictEqual((await bob.next()).text, 'hello');
  cat.say('nobody here?');
  assert.strictEqual((await cat.next()).text, 'nobody here?');
}));

test('a name is taken once in a room, and words have bounds', () => withServer(async (port) => {
  const ann = join(port, 'garden', 'Ann');
  await ann.next();
  await ann.next();
  const other = join(port, 'garden', 'Ann');
  assert.match((await other.next()).reason, /called Ann already/);
  ann.say('x'.repeat(2001));
  assert.strictEqual((await ann.next()).kind, 'refused');
}));
