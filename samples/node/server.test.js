'use strict';

const test = require('node:test');
const assert = require('node:assert');
const { makeApp } = require('./server.js');

async function withServer(story) {
  const server = makeApp().listen(0, '127.0.0.1');
  await new Promise((ready) => server.once('listening', ready));
  const base = `http://127.0.0.1:${server.address().port}`;
  const call = async (method, path, body) => {
    const res = await fetch(base + path, {
      method,
      body: body === undefined ? undefined : JSON.stringify(body),
      headers: { 'content-type': 'application/json', connection: 'close' },
    });
    return { status: res.status, body: res.status === 204 ? null : await res.json() };
  };
  try {
    await story(call);
  } finally {
    server.close();
  }
}

test('a task is added, done and removed', () => withServer(async (call) => {
  const added = await call('POST', '/api/tasks', { title: ' water the plants ' });
  assert.deepStrictEqual(added, { status: 201, body: { id: 1, title: 'water the plants', done: false } });
  assert.strictEqual((await call('PATCH', '/api/tasks/1', { done: true })).body.done, true);
  assert.strictEqual((await call('GET', '/api/tasks')).body.length, 1);
  assert.strictEqual((await call('DELETE', '/api/tasks/1')).status, 204);
  assert.deepStrictEqual((await call('GET', '/api/tasks')).body, []);
}));

test('what is wrong is named', () => withServer(async (call) => {
  assert.match((await call('POST', '/api/tasks', { title: '' })).body.error, /1 to 200/);
  assert.strictEqual((await call('PATCH', '/api/tasks/7', { done: true })).status, 404);
  assert.strictEqual((await call('GET', '/api/nowhere')).status, 404);
}));
