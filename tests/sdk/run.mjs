// Drives the unmodified @google-cloud/run of npm, over gRPC and over REST, against the API alone.
//
//   node tests/sdk/run.mjs SERVE_EXAMPLE NODE_MODULES
//
// SERVE_EXAMPLE is crates/api/examples/serve.rs, built; NODE_MODULES is where npm put the client.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createRequire } from 'node:module';
import net from 'node:net';
import path from 'node:path';

const [serve, modules] = process.argv.slice(2);
const load = createRequire(path.join(path.resolve(modules), 'x.js'));
const { ServicesClient, RevisionsClient } = load('@google-cloud/run').v2;
const { grpc } = load('google-gax');
const { OAuth2Client } = load('google-auth-library');

const PARENT = 'projects/demo/locations/us-central1';
const NAME = `${PARENT}/services/hello`;
// google.rpc.Code.
const [INVALID_ARGUMENT, NOT_FOUND, ALREADY_EXISTS, ABORTED] = [3, 5, 6, 10];

/** The API on a free port of loopback, and clients of it over one transport. */
class Server {
  static async start(transport) {
    const free = net.createServer();
    await new Promise((done) => free.listen(0, '127.0.0.1', done));
    const { port } = free.address();
    await new Promise((done) => free.close(done));
    const process = spawn(serve, [`127.0.0.1:${port}`], { stdio: ['ignore', 'pipe', 'inherit'] });
    // The token is printed once the port is open.
    const token = await new Promise((done) => process.stdout.once('data', (d) => done(`${d}`.trim())));
    return Object.assign(new Server(), { transport, port, process, token });
  }

  /** A client as its users make it, but for the address and the token. */
  client(Kind) {
    const options = { apiEndpoint: '127.0.0.1', port: this.port, projectId: 'demo' };
    if (this.transport === 'rest') {
      const authClient = new OAuth2Client();
      authClient.setCredentials({ access_token: this.token });
      return new Kind({ ...options, fallback: true, protocol: 'http', authClient });
    }
    return new Kind({ ...options, sslCreds: grpc.credentials.createInsecure() });
  }

  /** gRPC sends credentials through TLS alone, so the token goes as what it becomes there. */
  get call() {
    return this.transport === 'rest' ? {} : { otherArgs: { headers: { authorization: `Bearer ${this.token}` } } };
  }
}

/** The error that a call must end in. */
async function fails(code, call) {
  const error = await call.then(() => null, (error) => error);
  assert.ok(error, `must fail with ${code}`);
  // Over REST the code is HTTP's, and the word tells.
  const http = { [INVALID_ARGUMENT]: 400, [NOT_FOUND]: 404, [ALREADY_EXISTS]: 409, [ABORTED]: 409 };
  assert.ok([code, http[code]].includes(error.code), `${error.code}: ${error.message}`);
  return error;
}

/** Waits for an operation as its users do; polls with the token. */
async function done(server, [operation]) {
  // The client's own polling sends no headers over gRPC, so it is told what to send.
  if (server.transport === 'grpc') {
    operation.callOptions = { ...operation.callOptions, ...server.call };
  }
  const [result] = await operation.promise();
  return result;
}

const wanted = (image = 'hello') => ({
  description: 'says hello',
  labels: { team: 'a' },
  template: {
    scaling: { maxInstanceCount: 7 },
    timeout: { seconds: 60 },
    maxInstanceRequestConcurrency: 5,
    containers: [{ image, env: [{ name: 'A', value: '1' }], resources: { limits: { cpu: '1', memory: '256Mi' } } }],
  },
});

const stories = {
  async create(server) {
    const services = server.client(ServicesClient);
    const request = { parent: PARENT, service: wanted(), serviceId: 'hello' };
    const made = await done(server, await services.createService(request, server.call));
    assert.equal(made.name, NAME);
    await fails(ALREADY_EXISTS, services.createService(request, server.call));
  },

  async get(server) {
    const [got] = await server.client(ServicesClient).getService({ name: NAME }, server.call);
    assert.equal(got.description, 'says hello');
    assert.deepEqual({ ...got.labels }, { team: 'a' });
    assert.equal(Number(got.template.timeout.seconds), 60);
    assert.equal(got.template.containers[0].env[0].value, '1');
    assert.equal(got.terminalCondition.state, 'CONDITION_SUCCEEDED');
    assert.equal(Number(got.generation), 1);
  },

  async update(server) {
    const services = server.client(ServicesClient);
    const request = {
      service: { name: NAME, template: { maxInstanceRequestConcurrency: 9 } },
      updateMask: { paths: ['description', 'template.max_instance_request_concurrency'] },
    };
    const now = await done(server, await services.updateService(request, server.call));
    assert.equal(now.description, '');
    assert.equal(now.template.maxInstanceRequestConcurrency, 9);
    assert.equal(now.template.containers[0].image, 'hello');
    request.updateMask.paths = ['nonsense'];
    await fails(INVALID_ARGUMENT, services.updateService(request, server.call));
    request.updateMask.paths = ['description'];
    request.service.etag = Buffer.from('1/none').toString('base64');
    await fails(ABORTED, services.updateService(request, server.call));
  },

  async lists(server) {
    const services = server.client(ServicesClient);
    const second = { parent: PARENT, service: wanted('hello:2'), serviceId: 'other' };
    await done(server, await services.createService(second, server.call));
    const names = [];
    for await (const one of services.listServicesAsync({ parent: PARENT, pageSize: 1 }, server.call)) names.push(one.name);
    assert.deepEqual(names, [NAME, `${PARENT}/services/other`]);
    const [revisions] = await server.client(RevisionsClient).listRevisions({ parent: NAME }, server.call);
    assert.equal(revisions.length, 2);
    assert.match(revisions[0].containers[0].image, /@sha256:/);
  },

  async policy(server) {
    const services = server.client(ServicesClient);
    const bindings = [{ role: 'roles/run.invoker', members: ['allUsers'] }];
    const [set] = await services.setIamPolicy({ resource: NAME, policy: { bindings } }, server.call);
    const [got] = await services.getIamPolicy({ resource: NAME }, server.call);
    assert.deepEqual(got.bindings[0].members, ['allUsers']);
    assert.deepEqual(Buffer.from(got.etag), Buffer.from(set.etag));
    await services.setIamPolicy({ resource: NAME, policy: got }, server.call);
    await fails(ABORTED, services.setIamPolicy({ resource: NAME, policy: got }, server.call));
    const permissions = ['run.services.get'];
    const [tested] = await services.testIamPermissions({ resource: NAME, permissions }, server.call);
    assert.deepEqual(tested.permissions, permissions);
  },

  async errors(server) {
    const services = server.client(ServicesClient);
    await fails(NOT_FOUND, services.getService({ name: `${PARENT}/services/none` }, server.call));
    const service = wanted();
    service.iapEnabled = true;
    service.template.healthCheckDisabled = true;
    const request = { parent: PARENT, service, serviceId: 'wrong' };
    const error = await fails(INVALID_ARGUMENT, services.createService(request, server.call));
    // Over REST the error is that of the HTTP library below, whose message is the answer as it came.
    const details = error.statusDetails ?? JSON.parse(error.message).error.details;
    const fields = details.flatMap((d) => d.fieldViolations ?? []).map((v) => v.field);
    assert.deepEqual(fields.sort(), ['iap_enabled', 'template.health_check_disabled']);
  },

  async remove(server) {
    const services = server.client(ServicesClient);
    await done(server, await services.deleteService({ name: NAME }, server.call));
    await fails(NOT_FOUND, services.getService({ name: NAME }, server.call));
  },
};

let [passed, failed] = [0, 0];
for (const transport of ['grpc', 'rest']) {
  const server = await Server.start(transport);
  for (const [name, story] of Object.entries(stories)) {
    try {
      await story(server);
      passed += 1;
      console.log(`ok node ${transport} ${name}`);
    } catch (error) {
      failed += 1;
      console.error(error);
      console.log(`FAIL node ${transport} ${name}: ${error.message}`);
    }
  }
  server.process.kill();
}
console.log(`${passed} passed, ${failed} failed, 0 skipped`);
process.exit(failed ? 1 : 0);
