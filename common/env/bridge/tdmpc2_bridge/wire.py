"""The messages of proto/bridge.proto over ZeroMQ, without any library.

A message is a header, protobuf, and a frame of raw bytes if it has any. Of protobuf what bridge.proto uses is
understood: fixed32, fixed64, double, bool and string fields; others are skipped. Of ZeroMQ it is ZMTP 3.0, a PAIR with
the NULL mechanism (rfc.zeromq.org/spec/23), on a connection that is made already.
"""
import socket
import struct
import time

VERSION = 1
OPEN, RESET, STEP, STATE_GET, STATE_SET, RENDER, CLOSE, FAILED = 1, 2, 3, 4, 5, 6, 7, 8
TERMINATED, TRUNCATED, HAS_SUCCESS, SUCCESS = 1, 2, 4, 8
LOST, SETUP, REFUSED = 1, 2, 3

HEADER_MAX = 1 << 16
BULK_MAX = 1 << 26

_NEAR_NS = 100_000  # so long a receive looks again before it sleeps
_REST = 32  # receives that sleep at once, after one that looked in vain

# ZMTP: the greeting (signature, version 3.0, mechanism, not a server), then READY; the flags of a frame
_GREETING = b"\xff" + bytes(8) + b"\x7f" + b"\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
_READY = b"\x05READY" + b"\x0bSocket-Type" + struct.pack(">I", 4) + b"PAIR"
_MORE, _LARGE, _COMMAND = 1, 2, 4

# version, kind, sequence, reward, flags, env_ns: tags 1..6 with their wire types
_reply = struct.Struct("<B I B I B Q B d B I B Q".replace(" ", ""))
_TAGS = (1 << 3 | 5, 2 << 3 | 5, 3 << 3 | 1, 4 << 3 | 1, 5 << 3 | 5, 6 << 3 | 1)
_REQUEST = {1: "version", 2: "kind", 3: "sequence", 4: "task", 5: "has_seed", 6: "seed", 7: "width",
            8: "height"}
_FIXED = {"obs_dim": 7, "action_dim": 8, "episode_length": 9, "action_repeat": 10, "state_size": 11,
          "failure": 13}
_TEXT = {"name": 12, "text": 14}


class Closed(Exception):
    """The owner is gone."""


class Corrupt(Exception):
    """Bytes that are no message of ours."""


class Request:
    __slots__ = ("version", "kind", "sequence", "task", "has_seed", "seed", "width", "height", "bulk")

    def __init__(self):
        self.version = self.kind = self.sequence = self.seed = self.width = self.height = 0
        self.task, self.has_seed, self.bulk = "", False, b""


def _varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise Corrupt("a number without an end")


def decode_request(data):
    request, at, end = Request(), 0, len(data)
    try:
        while at < end:
            tag, at = _varint(data, at)
            kind = tag & 7
            if kind == 0:
                value, at = _varint(data, at)
            elif kind == 5:
                value, = struct.unpack_from("<I", data, at)
                at += 4
            elif kind == 1:
                value, = struct.unpack_from("<Q", data, at)
                at += 8
            elif kind == 2:
                size, at = _varint(data, at)
                if size > end - at:
                    raise Corrupt("a text that is cut short")
                value = bytes(data[at:at + size]).decode("utf-8", "replace")
                at += size
            else:
                raise Corrupt("a field of unknown type")
            name = _REQUEST.get(tag >> 3)
            if name is not None:
                setattr(request, name, value)
    except (IndexError, struct.error) as error:
        raise Corrupt("a header that is cut short") from error
    return request


def _encode_varint(value):
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _frame_head(flags, size):
    return bytes((flags, size)) if size < 256 else struct.pack(">BQ", flags | _LARGE, size)


def _frame(flags, body):
    return _frame_head(flags, len(body)) + body


def encode_reply(kind, sequence, bulk=b"", reward=0.0, flags=0, env_ns=0, **more):
    """The bytes of a whole message."""
    t = _TAGS
    header = _reply.pack(t[0], VERSION, t[1], kind, t[2], sequence, t[3], reward, t[4], flags, t[5], env_ns)
    for name, value in more.items():
        if name in _FIXED:
            header += _encode_varint(_FIXED[name] << 3 | 5) + struct.pack("<I", value)
        else:
            text = value.encode("utf-8", "replace")
            header += _encode_varint(_TEXT[name] << 3 | 2) + _encode_varint(len(text)) + text
    if not bulk:
        return _frame(0, header)
    return b"".join((_frame(_MORE, header), _frame_head(0, len(bulk)), bulk))


class Socket:
    """Whole messages in and out of a connected stream socket."""

    def __init__(self, sock):
        self.sock = sock
        self.buffer = bytearray(1 << 16)
        self.start = self.end = 0  # of what came and was not taken yet
        self.rest = 0  # receives that do not look again

    def greet(self):
        """Say who we are, hear who they are."""
        self.sock.sendall(_GREETING + _frame(_COMMAND, _READY))
        at = self._need(len(_GREETING))
        theirs = self.buffer[at:at + len(_GREETING)]
        if theirs[0] != 0xFF or theirs[9] != 0x7F or theirs[10] < 3 or theirs[12:32] != _GREETING[12:32]:
            raise Corrupt("no greeting of ZeroMQ")
        self.start += len(_GREETING)
        flags, at, end = self._take()
        if not flags & _COMMAND or self.buffer[at:at + 6] != b"\x05READY":
            raise Corrupt("a greeting without an end")

    def _need(self, size):
        """So many bytes are there when this returns: where they begin."""
        if self.start + size > len(self.buffer):
            rest = self.buffer[self.start:self.end]
            if size > len(self.buffer):
                self.buffer = bytearray(size)
            self.buffer[:len(rest)] = rest
            self.start, self.end = 0, len(rest)
        view = memoryview(self.buffer)
        while self.end - self.start < size:
            got = self._hear(view[self.end:])
            if got == 0:
                raise Closed()
            self.end += got
        return self.start

    def _hear(self, room):
        """What has come, at least a byte.

        The next request is often near, and an idle core takes longer to wake than that: so the socket is looked at
        for a moment before this process sleeps. Where that was in vain (the owner plans, the cores are taken), the
        next ones sleep at once.
        """
        if self.rest > 0:
            self.rest -= 1
            return self.sock.recv_into(room)
        until = time.perf_counter_ns() + _NEAR_NS
        while time.perf_counter_ns() < until:
            try:
                return self.sock.recv_into(room, 0, socket.MSG_DONTWAIT)
            except BlockingIOError:
                pass
        self.rest = _REST
        return self.sock.recv_into(room)

    def _take(self):
        """The next frame: its flags, where it begins and ends; valid until the next one is taken."""
        at = self._need(2)
        flags, size, head = self.buffer[at], self.buffer[at + 1], 2
        if flags & _LARGE:
            at = self._need(9)
            size, head = struct.unpack_from(">Q", self.buffer, at + 1)[0], 9
        if flags > 7 or size > BULK_MAX:
            raise Corrupt("a frame of %d bytes with flags %d" % (size, flags))
        at = self._need(head + size) + head
        self.start += head + size
        if self.start == self.end:
            self.start = self.end = 0
        return flags, at, at + size

    def _message_frame(self):
        while True:
            flags, at, end = self._take()
            if not flags & _COMMAND:
                return flags, at, end

    def receive(self):
        flags, at, end = self._message_frame()
        if end - at > HEADER_MAX:
            raise Corrupt("a header of %d bytes" % (end - at))
        request = decode_request(memoryview(self.buffer)[at:end])
        if flags & _MORE:
            flags, at, end = self._message_frame()
            request.bulk = bytes(memoryview(self.buffer)[at:end])
            if flags & _MORE:
                raise Corrupt("a message of too many frames")
        if request.version != VERSION:
            raise Corrupt("version %d of the messages, this is %d" % (request.version, VERSION))
        return request

    def send(self, message):
        self.sock.sendall(message)
