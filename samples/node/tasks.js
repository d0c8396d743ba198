'use strict';

/** The tasks of this instance, at most `limit` of them. Knows nothing of HTTP. */
class Tasks {
  #tasks = new Map();
  #next = 1;

  constructor(limit = 1000) {
    this.limit = limit;
  }

  list() {
    return [...this.#tasks.values()];
  }

  /** Adds a task; throws a `Refused` that says what was wrong with the title. */
  add(title) {
    const text = cleanTitle(title);
    if (this.#tasks.size >= this.limit) {
      throw new Refused(409, `there are ${this.limit} tasks already; delete one first`);
    }
    const task = { id: this.#next++, title: text, done: false };
    this.#tasks.set(task.id, task);
    return task;
  }

  change(id, { title, done }) {
    const task = this.#find(id);
    if (title !== undefined) task.title = cleanTitle(title);
    if (done !== undefined) {
      if (typeof done !== 'boolean') throw new Refused(400, 'done must be true or false');
      task.done = done;
    }
    return task;
  }

  remove(id) {
    const task = this.#find(id);
    this.#tasks.delete(task.id);
    return task;
  }

  #find(id) {
    const task = this.#tasks.get(Number(id));
    if (!task) throw new Refused(404, `there is no task ${id}`);
    return task;
  }
}

/** A request that cannot be done, with the status and the words for the person who made it. */
class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

function cleanTitle(title) {
  if (typeof title !== 'string' || !title.trim() || title.length > 200) {
    throw new Refused(400, 'title must be a text of 1 to 200 characters');
  }
  return title.trim();
}

module.exports = { Tasks, Refused };
