'use strict';

/** The limits of one instance; a stranger cannot make it grow beyond them. */
const LIMITS = { rooms: 200, people: 200, name: 30, text: 2000, backlog: 20 };

/** Who is in which room, and what was said there last. Speaks through the `send` function of each member. */
class Rooms {
  #rooms = new Map();

  /** Adds a member; returns what to do with its words and its leaving, or throws an `Error` that says why not. */
  join(roomName, name, send) {
    const room = this.#rooms.get(roomName) ?? { members: new Map(), backlog: [] };
    if (!/^[\p{L}\p{N}_-]{1,30}$/u.test(roomName)) throw new Error('a room is named by 1 to 30 letters, digits, - and _');
    if (!name || name.length > LIMITS.name) throw new Error('a name has 1 to 30 characters');
    if (room.members.has(name)) throw new Error(`somebody in ${roomName} is called ${name} already`);
    if (room.members.size >= LIMITS.people) throw new Error(`${roomName} is full`);
    if (!this.#rooms.has(roomName) && this.#rooms.size >= LIMITS.rooms) throw new Error('there are too many rooms');
    this.#rooms.set(roomName, room);

    send({ kind: 'welcome', room: roomName, people: [...room.members.keys()], backlog: room.backlog });
    room.members.set(name, send);
    this.#tell(room, { kind: 'joined', name });
    return {
      say: (text) => {
        if (typeof text !== 'string' || !text.trim() || text.length > LIMITS.text) {
          send({ kind: 'refused', reason: `text must have 1 to ${LIMITS.text} characters` });
          return;
        }
        const said = { kind: 'said', name, text, at: new Date().toISOString() };
        room.backlog.push(said);
        if (room.backlog.length > LIMITS.backlog) room.backlog.shift();
        this.#tell(room, said);
      },
      leave: () => {
        room.members.delete(name);
        this.#tell(room, { kind: 'left', name });
        if (room.members.size === 0) this.#rooms.delete(roomName);
      },
    };
  }

  list() {
    return [...this.#rooms].map(([room, { members }]) => ({ room, people: members.size }));
  }

  #tell(room, message) {
    for (const send of room.members.values()) send(message);
  }
}

module.exports = { Rooms, LIMITS };
