'use strict';

const path = require('node:path');
const express = require('express');
const { Tasks, Refused } = require('./tasks.js');

/** Listeners of one instance's event stream are bounded, as everything that grows with strangers should be. */
const MAX_LISTENERS = 500;

function makeApp(tasks = new Tasks()) {
  const app = express();
  const listeners = new Set();
  const tell = (change, task) => {
    for (const res of listeners) res.write(`event: ${change}\ndata: ${JSON.stringify(task)}\n\n`);
  };

  app.disable('x-powered-by');
  app.use(express.json({ limit: '64kb' }));
  app.use(express.static(path.join(__dirname, 'public'), { maxAge: '1m' }));

  app.get('/api/about', (req, res) => {
    res.json({
      service: process.env.K_SERVICE ?? 'node',
      revision: process.env.K_REVISION ?? 'local',
      node: process.version,
    });
  });
  app.get('/api/tasks', (req, res) => res.json(tasks.list()));
  app.post('/api/tasks', (req, res) => {
    const task = tasks.add(req.body?.title);
    tell('added', task);
    res.status(201).json(task);
  });
  app.patch('/api/tasks/:id', (req, res) => {
    const task = tasks.change(req.params.id, req.body ?? {});
    tell('changed', task);
    res.json(task);
  });
  app.delete('/api/tasks/:id', (req, res) => {
    tell('removed', tasks.remove(req.params.id));
    res.status(204).end();
  });
  app.get('/api/events', (req, res) => {
    if (listeners.size >= MAX_LISTENERS) throw new Refused(503, 'too many listeners, try again later');
    res.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' });
    res.write(': welcome\n\n');
    listeners.add(res);
    req.on('close', () => listeners.delete(res));
  });

  app.use((req, res) => res.status(404).json({ error: `nothing is at ${req.path}` }));
  app.use((error, req, res, next) => {
    const status = error.status ?? 500;
    if (status >= 500) log('ERROR', error.stack);
    if (res.headersSent) return next(error);
    res.status(status).json({ error: status >= 500 && !(error instanceof Refused) ? 'internal error' : error.message });
  });
  app.endStreams = () => listeners.forEach((res) => res.end());
  return app;
}

function log(severity, message) {
  console.log(JSON.stringify({ severity, message }));
}

function main() {
  const port = Number(process.env.PORT ?? 8080);
  const app = makeApp();
  const server = app.listen(port, '0.0.0.0', (error) => {
    if (error) {
      log('ERROR', `port ${port}: ${error.message}`);
      process.exit(1);
    }
    log('INFO', `listening on port ${port}`);
  });
  for (const signal of ['SIGTERM', 'SIGINT']) {
    process.on(signal, () => {
      log('INFO', `${signal}: finishing the requests in progress`);
      app.endStreams();
      server.close(() => process.exit(0));
      server.closeIdleConnections();
    });
  }
}

if (require.main === module) main();

module.exports = { makeApp };
