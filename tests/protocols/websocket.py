"""WebSocket cases in the families of the Autobahn test suite, frame by frame (RFC 6455, RFC 7692).

Each is a list of writes and what ends it. Its outcome, frames and end, must be the same through the gateway as without: the
gateway joins two connections, and whatever it did to a frame would be a fault.
"""

import os
import socket
import struct
import zlib

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
# One mask, so that what is sent can be read in a failure.
MASK = b"\x37\xfa\x21\x3d"


def frame(code, payload=b"", final=True, reserved=0, masked=True, length=None):
    """A frame of a client; `length` claims another one than it has."""
    size = len(payload) if length is None else length
    head = bytes([(0x80 if final else 0) | reserved << 4 | code])
    bit = 0x80 if masked else 0
    if size < 126:
        head += bytes([bit | size])
    elif size < 1 << 16:
        head += bytes([bit | 126]) + struct.pack(">H", size)
    else:
        head += bytes([bit | 127]) + struct.pack(">Q", size)
    if not masked:
        return head + payload
    return head + MASK + bytes(byte ^ MASK[n % 4] for n, byte in enumerate(payload))


def close(code=1000, why=b""):
    """A close frame."""
    return frame(CLOSE, struct.pack(">H", code) + why)


def pieces(data, size):
    """The same bytes in several writes."""
    return [data[at:at + size] for at in range(0, len(data), size)]


def packed(payload):
    """A payload as permessage-deflate sends it."""
    deflate = zlib.compressobj(wbits=-15)
    return (deflate.compress(payload) + deflate.flush(zlib.Z_SYNC_FLUSH))[:-4]


def fragments(code, payload, count):
    """A message in so many frames."""
    size = -(-len(payload) // count)
    parts = pieces(payload, size) or [b""]
    return b"".join(frame(code if n == 0 else 0, part, final=n == len(parts) - 1) for n, part in enumerate(parts))


GREEK = "κόσμε".encode()
END = close()


def cases():
    """(name, writes, headers) of every case."""
    for kind, code in (("text", TEXT), ("binary", BINARY)):
        for size in (0, 125, 126, 127, 128, 65535, 65536):
            yield f"1 framing: {kind} of {size} bytes", [frame(code, b"*" * size), END], {}
        yield f"1 framing: {kind} of 65536 bytes in writes of 997", pieces(frame(code, b"*" * 65536) + END, 997), {}
    yield "2 pings: none, some and most bytes", [frame(PING), frame(PING, b"x" * 20), frame(PING, b"\0\xff" * 62), END], {}
    yield "2 pings: one byte too many", [frame(PING, b"x" * 126), END], {}
    yield "2 pings: octet by octet", pieces(frame(PING, b"x" * 20) + END, 1), {}
    yield "2 pongs: not asked for", [frame(PONG, b"x"), frame(PING, b"y"), END], {}
    yield "2 pings: ten at once", [b"".join(frame(PING, b"%d" % n) for n in range(10)) + END], {}
    for bits in range(1, 8):
        yield f"3 reserved bits: {bits}", [frame(TEXT, b"a"), frame(TEXT, b"b", reserved=bits), END], {}
    for code in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15):
        yield f"4 opcodes: {code}", [frame(TEXT, b"a"), frame(code), END], {}
    yield "5 fragments: of a ping", [frame(PING, b"a", final=False), frame(0, b"b"), END], {}
    yield "5 fragments: a ping between", [frame(TEXT, b"a", final=False), frame(PING, b"p"), frame(0, b"b"), END], {}
    yield "5 fragments: all in one write", [fragments(TEXT, b"fragment" * 10, 7) + END], {}
    yield "5 fragments: octet by octet", pieces(fragments(TEXT, b"fragment", 3) + END, 1), {}
    yield "5 fragments: a continuation of nothing", [frame(0, b"a"), END], {}
    yield "5 fragments: of nothing, not final", [frame(0, b"a", final=False), frame(TEXT, b"b"), END], {}
    yield "5 fragments: a new message within one", [frame(TEXT, b"a", final=False), frame(TEXT, b"b"), END], {}
    yield "5 fragments: empty ones", [frame(TEXT, final=False), frame(0, final=False), frame(0), END], {}
    yield "6 UTF-8: Greek", [frame(TEXT, GREEK), END], {}
    yield "6 UTF-8: Greek, fragmented within letters", [fragments(TEXT, GREEK, len(GREEK)) + END], {}
    for bad in (b"\xc3\x28", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\xaf", b"\xff", GREEK[:-1]):
        yield f"6 UTF-8: {bad.hex()} is none", [frame(TEXT, bad), END], {}
    yield "6 UTF-8: U+10FFFF and U+0000", [frame(TEXT, "\U0010ffff\0".encode()), END], {}
    yield "7 close: without a code", [frame(CLOSE)], {}
    yield "7 close: one byte", [frame(CLOSE, b"\x03")], {}
    yield "7 close: with a reason of 123 bytes", [close(why=b"w" * 123)], {}
    yield "7 close: with a reason of 124 bytes", [close(why=b"w" * 124)], {}
    yield "7 close: with a reason that is no UTF-8", [close(why=b"\xff")], {}
    yield "7 close: twice", [END + END], {}
    yield "7 close: and a message after it", [END + frame(TEXT, b"late")], {}
    for code in (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999):
        yield f"7 close: code {code}", [close(code)], {}
    for code in (0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999, 5000):
        yield f"7 close: code {code} is none", [close(code)], {}
    yield "8 masks: none", [frame(TEXT, b"a", masked=False), END], {}
    yield "9 limits: 1 MiB in one frame", [frame(BINARY, os.urandom(1 << 20)), END], {}
    yield "9 limits: 1 MiB in 256 frames", [fragments(BINARY, os.urandom(1 << 20), 256), END], {}
    yield "9 limits: a byte more than the app takes", [frame(BINARY, b"*" * ((1 << 20) + 1)), END], {}
    yield "9 limits: a length with its highest bit set", [frame(BINARY, length=1 << 63), END], {}
    yield "10 many: 500 messages at once", [b"".join(frame(TEXT, b"%d" % n) for n in range(500)) + END], {}
    deflate = {"Sec-WebSocket-Extensions": "permessage-deflate; client_no_context_takeover; server_no_context_takeover"}
    for size in (0, 16, 64, 1000, 100000):
        yield (f"12 compression: {size} bytes", [frame(TEXT, packed(b"lauf " * (size // 5)), reserved=4), END], deflate)
    yield "12 compression: what is no deflate", [frame(TEXT, b"\xff\xff\xff", reserved=4), END], deflate
    yield "13 offers: one that the app does not know", [frame(TEXT, b"a"), END], {"Sec-WebSocket-Extensions": "x-none"}
    yield "13 offers: a subprotocol", [frame(TEXT, b"a"), END], {"Sec-WebSocket-Protocol": "other, chat"}


def open_at(address, host, headers):
    """The handshake; gives the connection, what the server said of it, and what it said already."""
    conn = socket.create_connection(address, timeout=20)
    conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    asked = {"Host": host, "Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Key": KEY,
             "Sec-WebSocket-Version": "13", **headers}
    head = "".join(f"{name}: {value}\r\n" for name, value in asked.items())
    conn.sendall(f"GET /ws HTTP/1.1\r\n{head}\r\n".encode())
    said = b""
    while b"\r\n\r\n" not in said:
        part = conn.recv(4096)
        if not part:
            raise OSError(f"the server ended the handshake after {said!r}")
        said += part
    head, rest = said.split(b"\r\n\r\n", 1)
    lines = head.decode().split("\r\n")
    fields = dict(line.lower().split(": ", 1) for line in lines[1:])
    kept = {name: fields.get(name) for name in ("upgrade", "sec-websocket-accept", "sec-websocket-extensions", "sec-websocket-protocol")}
    return conn, (lines[0], kept), rest


def frames(data):
    """What a server sent, frame by frame, and what is left of one that is not whole."""
    found = []
    while len(data) >= 2:
        size, at = data[1] & 0x7f, 2
        if size == 126:
            size, at = int.from_bytes(data[2:4], "big"), 4
        elif size == 127:
            size, at = int.from_bytes(data[2:10], "big"), 10
        if len(data) < at + size:
            break
        found.append((data[0], data[at:at + size]))
        data = data[at + size:]
    return found, data


def outcome(address, host, writes, headers):
    """All that comes of a case: the handshake, the frames, and the end."""
    conn, handshake, said = open_at(address, host, headers)
    with conn:
        try:
            for data in writes:
                conn.sendall(data)
            # Nothing is asked for after this.
            conn.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # The app may have ended it before it had all of it; what it said is still there.
        try:
            while part := conn.recv(1 << 16):
                said += part
        except ConnectionResetError:
            pass  # So ends a connection with data that nobody read; when, is a race in the app as well.
    return handshake, frames(said)
