'use strict';

const fs = require('node:fs');
const http = require('node:http');
const path = require('node:path');
const { WebSocketServer } = require('ws');
const { Rooms } = require('./rooms.js');

/** A member whose unread messages reach this size is gone or too slow, and is let go. */
const MAX_UNSENT = 1024 * 1024;
const PING_EVERY_MS = 30_000;

function makeServer() {
  const page = fs.readFileSync(path.join(__dirname, 'index.html'));
  const rooms = new Rooms();
  const server = http.createServer((req, res) => {
    const { pathname } = new URL(req.url, 'http://chat');
    if (pathname === '/') {
      res.writeHead(200, { 'content-type': 'text/html; charset=utf-8' }).end(page);
    } else if (pathname === '/rooms') {
      res.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(rooms.list()));
    } else {
      res.writeHead(404, { 'content-type': 'text/plain' }).end('there is /, /rooms and the WebSocket /ws\n');
    }
  });

  const sockets = new WebSocketServer({ server, path: '/ws', maxPayload: 16 * 1024, perMessageDeflate: false });
  sockets.on('connection', (socket, req) => {
    const asked = new URL(req.url, 'http://chat').searchParams;
    const send = (message) => {
      if (socket.bufferedAmount > MAX_UNSENT) socket.terminate();
      else socket.send(JSON.stringify(message));
    };
    let member;
    try {
      member = rooms.join(asked.get('room') ?? 'lobby', (asked.get('name') ?? '').trim(), send);
    } catch (error) {
      send({ kind: 'refused', reason: error.message });
      socket.close(1008, error.message.slice(0, 120));
      return;
    }
    socket.alive = true;
    socket.on('pong', () => { socket.alive = true; });
    socket.on('message', (data) => {
      let text;
      try {
        text = JSON.parse(data.toString()).text;
      } catch {
        text = undefined;
      }
      member.say(text);
    });
    socket.on('close', () => member.leave());
    socket.on('error', (error) => log('WARNING', error.message));
  });

  const pings = setInterval(() => {
    for (const socket of sockets.clients) {
      if (!socket.alive) socket.terminate();
      socket.alive = false;
      socket.ping();
    }
  }, PING_EVERY_MS);
  pings.unref();

  server.stop = (done) => {
    clearInterval(pings);
    // 1012: the service restarts; the page connects again, and lands on another instance.
    for (const socket of sockets.clients) socket.close(1012, 'the instance is going away');
    server.close(done);
    server.closeIdleConnections();
  };
  return server;
}

function log(severity, message) {
  console.log(JSON.stringify({ severity, message }));
}

function main() {
  const port = Number(process.env.PORT ?? 8080);
  const server = makeServer();
  server.on('error', (error) => {
    log('ERROR', `port ${port}: ${error.message}`);
    process.exit(1);
  });
  server.listen(port, '0.0.0.0', () => log('INFO', `listening on port ${port}`));
  for (const signal of ['SIGTERM', 'SIGINT']) {
    process.on(signal, () => {
      log('INFO', `${signal}: sending everybody away`);
      server.stop(() => process.exit(0));
    });
  }
}

if (require.main === module) main();

module.exports = { makeServer };
