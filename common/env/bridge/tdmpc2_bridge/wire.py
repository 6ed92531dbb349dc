"""The messages of proto/bridge.proto and their frames, without any library.

A frame is <u32 header bytes> <u32 bulk bytes> <header: protobuf> <bulk>, little-endian. Only what
bridge.proto uses is understood: fixed32, fixed64, double, bool and string fields; others are skipped.
"""
import struct

VERSION = 1
OPEN, RESET, STEP, STATE_GET, STATE_SET, RENDER, CLOSE, FAILED = 1, 2, 3, 4, 5, 6, 7, 8
TERMINATED, TRUNCATED, HAS_SUCCESS, SUCCESS = 1, 2, 4, 8
LOST, SETUP, REFUSED = 1, 2, 3

HEADER_MAX = 1 << 16
BULK_MAX = 1 << 26

_head = struct.Struct("<II")
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


def encode_reply(kind, sequence, bulk=b"", reward=0.0, flags=0, env_ns=0, **more):
    """The bytes of a whole frame."""
    t = _TAGS
    header = _reply.pack(t[0], VERSION, t[1], kind, t[2], sequence, t[3], reward, t[4], flags, t[5], env_ns)
    for name, value in more.items():
        if name in _FIXED:
            header += _encode_varint(_FIXED[name] << 3 | 5) + struct.pack("<I", value)
        else:
            text = value.encode("utf-8", "replace")
            header += _encode_varint(_TEXT[name] << 3 | 2) + _encode_varint(len(text)) + text
    return _head.pack(len(header), len(bulk)) + header + bytes(bulk)


class Socket:
    """Whole frames in and out of a connected stream socket."""

    def __init__(self, sock):
        self.sock = sock
        self.buffer = bytearray(1 << 16)
        self.have = 0

    def _need(self, size):
        """Bytes 0..size-1 of the buffer are there when this returns."""
        if size > len(self.buffer):
            self.buffer.extend(bytes(size - len(self.buffer)))
        view = memoryview(self.buffer)
        while self.have < size:
            got = self.sock.recv_into(view[self.have:])
            if got == 0:
                raise Closed()
            self.have += got

    def receive(self):
        self._need(_head.size)
        header, bulk = _head.unpack_from(self.buffer)
        if header > HEADER_MAX or bulk > BULK_MAX:
            raise Corrupt("a frame of %d and %d bytes" % (header, bulk))
        size = _head.size + header + bulk
        self._need(size)
        request = decode_request(memoryview(self.buffer)[_head.size:_head.size + header])
        request.bulk = bytes(memoryview(self.buffer)[_head.size + header:size])
        self.have -= size
        if self.have:
            self.buffer[:self.have] = self.buffer[size:size + self.have]
        if request.version != VERSION:
            raise Corrupt("version %d of the messages, this is %d" % (request.version, VERSION))
        return request

    def send(self, frame):
        self.sock.sendall(frame)
