"""The bytes of the worker protocol, both directions: ``docs/worker-protocol.md`` as structs and functions.

This module knows no socket and keeps no state. Lengths are checked before anything is allocated for them.
"""

from struct import Struct
from struct import error as StructError

from zoo_handler.errors import ProtocolError
from zoo_handler.item import Batch, Item

VERSION = (1, 0)

MAX_PAYLOAD = 1 << 20
MAX_CREDIT = 256 * 1024

HELLO = 0x01
LOAD = 0x02
LOADED = 0x03
LOAD_FAILED = 0x04
BATCH = 0x10
BODY = 0x11
REPLY = 0x12
CHUNK = 0x13
END = 0x14
CREDIT = 0x15
CANCEL = 0x16
DESCRIBE = 0x17
METRIC = 0x20
LOG = 0x21
PING = 0x30
PONG = 0x31
DRAIN = 0x32
BYE = 0x33

BATCH_MORE = 1
ITEM_EXPLAIN = 1
PART_BODIES = 1
REPLY_FAILED = 1
REPLY_CANCELLED = 2
REPLY_BODIES = 4
REPLY_STREAM = 8
END_FAILED = 1

FRAME = Struct("<IBBH")
VERSIONS = Struct("<HH")
BATCH_HEAD = Struct("<HH")
ITEM_HEAD = Struct("<QIIHHHBB")
PART_HEAD = Struct("<QHHBBH")
BODY_HEAD = Struct("<QQHHI")
REPLY_FRAME = Struct("<IBBHQQIIHBBI")  # frame header and the head of a Reply in one
REPLY_HEAD = Struct("<QQIIHBBI")
REPLY_HEAD_SIZE = REPLY_HEAD.size
BODY_FRAME = Struct("<IBBHQQHHI")
CHUNK_FRAME = Struct("<IBBHQ")
END_HEAD = Struct("<QIHBB")
END_FRAME = Struct("<IBBHQIHBB")
CREDIT_HEAD = Struct("<QII")
ID = Struct("<Q")
SHORT = Struct("<H")
LONG = Struct("<I")
METRIC_VALUE = Struct("<Bd")

# Bodies up to here go inside their Reply. Larger ones follow in frames that the server receives in place.
INLINE_UP_TO = 64 * 1024
MAX_BODY_PIECE = MAX_PAYLOAD - BODY_HEAD.size

_part_name = {b"body": "body", b"data": "data"}
_part_type = {b"": "", b"application/json": "application/json"}
_MAX_KNOWN = 256


def _known(table, raw):
    """The text of a name that clients repeat: decoded once. Bounded, because clients choose the names."""
    text = table.get(raw)
    if text is None:
        text = raw.decode("utf-8", "replace")
        if len(table) < _MAX_KNOWN:
            table[raw] = text
    return text


def decode_batch(
    payload,
    batch,
    bodies,
    max_body=float("inf"),
    _count=BATCH_HEAD.unpack_from,
    _item=ITEM_HEAD.unpack_from,
    _part=PART_HEAD.unpack_from,
    _name=_part_name.get,
    _type=_part_type.get,
):
    """Adds the items of one Batch frame to ``batch``.

    Values are raw here: what would be work in vain for a cancelled item (JSON, text) is noted in
    ``batch.late`` and done when the batch begins. Parts whose bytes follow are noted in ``bodies`` by (item
    id, part number); those of one item are together at most ``max_body`` bytes.
    """
    try:
        count, _ = _count(payload)
        at = 4
        items = batch.items
        data = batch.data
        for _ in range(count):
            identity, timeout, header_size, request_size, path_size, parts, flags, _ = _item(payload, at)
            item = Item(identity, timeout, flags, payload, at + 24, request_size, path_size, header_size)
            at += 24 + request_size + path_size + header_size
            batch.explained += flags & 1
            values = {}
            expected = 0
            index = len(items)
            for number in range(parts):
                length, name_size, type_size, part_flags, _, _ = _part(payload, at)
                at += 16
                raw = payload[at : at + name_size]
                name = _name(raw) or _known(_part_name, raw)
                at += name_size
                if type_size:
                    raw = payload[at : at + type_size]
                    content_type = _type(raw) or _known(_part_type, raw)
                    at += type_size
                    item.note_type(name, content_type)
                else:
                    content_type = ""
                late = content_type and (
                    content_type.startswith("text") or content_type == "application/json"
                )
                if late:
                    batch.late[index, name] = content_type
                elif batch.late:
                    batch.late.pop((index, name), None)  # an earlier part of this name: the last wins
                if part_flags & PART_BODIES:
                    expected += length
                    if expected > max_body:
                        text = "item {} declares bodies of {} bytes, at most {}"
                        raise ProtocolError(text.format(identity, expected, max_body))
                    values[name] = batch.expect(bodies, identity, number, length)
                else:
                    raw = payload[at : at + length]
                    values[name] = raw if late else bytearray(raw)
                    at += length
            items.append(item)
            data.append(values)
    except (StructError, OverflowError):  # the latter from a length that is no offset at all
        raise ProtocolError("Batch frame of {} bytes ends inside an item".format(len(payload))) from None
    if at != len(payload):  # slices beyond the end are silently short, so one check at the end sees them all
        raise ProtocolError("Batch frame of {} bytes holds items of {} bytes".format(len(payload), at))


def decode_hello(payload):
    """The version and the JSON text of a Hello."""
    if len(payload) < 4:
        raise ProtocolError("Hello frame of {} bytes has no version".format(len(payload)))
    return VERSIONS.unpack_from(payload), payload[4:]


def decode_credit(payload):
    """``(item, bytes)`` of a Credit."""
    if len(payload) < CREDIT_HEAD.size:
        raise ProtocolError("Credit frame of {} bytes is too short".format(len(payload)))
    item, size, _ = CREDIT_HEAD.unpack_from(payload)
    return item, size


def decode_cancel(payload):
    """The item ids of a Cancel."""
    if len(payload) % ID.size:
        raise ProtocolError("Cancel frame of {} bytes is not a list of ids".format(len(payload)))
    return [identity for (identity,) in ID.iter_unpack(payload)]


def decode_describe(payload):
    """A batch of the one item that stands for the question."""
    try:
        identity, size = ID.unpack_from(payload)[0], SHORT.unpack_from(payload, 8)[0]
    except StructError:
        raise ProtocolError("Describe frame of {} bytes is too short".format(len(payload))) from None
    if len(payload) < 10 + size:
        raise ProtocolError("Describe frame of {} bytes is shorter than its request id".format(len(payload)))
    batch = Batch()
    batch.items.append(Item(identity, 0, 0, payload, 10, size, 0, 0, describe=True))
    batch.data.append({})
    return batch


def encode_frame(kind, payload, flags=0):
    """One whole frame."""
    return FRAME.pack(len(payload), kind, flags, 0) + payload


def encode_hello(text):
    """A Hello with our version and this JSON text."""
    return encode_frame(HELLO, VERSIONS.pack(*VERSION) + text.encode())


_header_cache = {}


def encode_headers(headers):
    """A header block; names in lower case. Raises ValueError for a name that is too long."""
    block = b""
    for name, value in headers.items():
        if type(value) is not str:  # 1 and True would be one key of the cache, and a list is none
            value = str(value)
        raw = _header_cache.get((name, value))
        if raw is None:
            raw = _encode_header(name, value)
            # Handlers set the same few headers again and again. Bounded, because values come from anywhere.
            if len(raw) < 256 and len(_header_cache) < _MAX_KNOWN:
                _header_cache[name, value] = raw
        block += raw
    return block


def _encode_header(name, value):
    raw = value.encode("utf-8", "replace")
    return short_text(str(name).lower()) + LONG.pack(len(raw)) + raw


def short_text(text):
    """A str16. Raises ValueError if the text is longer than one can be."""
    raw = text.encode("utf-8", "replace")
    if len(raw) > 0xFFFF:
        raise ValueError("text of {} bytes is longer than 65535".format(len(raw)))
    return SHORT.pack(len(raw)) + raw


def encode_reply(item, headers, body, handler_us, status, flags=0):
    """The pieces of a whole answer. ``body`` is one of them as it is, so that a large one is never copied."""
    size = len(body)
    payload = REPLY_HEAD_SIZE + len(headers) + size
    if size <= INLINE_UP_TO and payload <= MAX_PAYLOAD:
        head = REPLY_FRAME.pack(
            payload, REPLY, 0, 0, item, size, len(headers), handler_us, status, flags, 0, 0
        )
        return [head + headers, body]
    payload -= size
    flags |= REPLY_BODIES
    head = REPLY_FRAME.pack(payload, REPLY, 0, 0, item, size, len(headers), handler_us, status, flags, 0, 0)
    pieces = [head + headers]
    view = memoryview(body)
    for offset in range(0, size, MAX_BODY_PIECE):
        piece = view[offset : offset + MAX_BODY_PIECE]
        pieces.append(BODY_FRAME.pack(BODY_HEAD.size + len(piece), BODY, 0, 0, item, offset, 0, 0, 0))
        pieces.append(piece)
    return pieces


def encode_stream_head(item, headers, handler_us, status):
    """The Reply that opens a stream."""
    payload = REPLY_HEAD_SIZE + len(headers)
    return (
        REPLY_FRAME.pack(payload, REPLY, 0, 0, item, 0, len(headers), handler_us, status, REPLY_STREAM, 0, 0)
        + headers
    )


def encode_end(item, handler_us, status, flags=0, message=b""):
    """The end of a stream."""
    return END_FRAME.pack(16 + len(message), END, 0, 0, item, handler_us, status, flags, 0) + message


def encode_metrics(metrics):
    """Metric frames for ``(name, unit, type, value, request_ids, [(dimension, value), …])`` tuples.

    What one metric of a handler can't say in 1 MiB is left out: metrics never break the answers.
    """
    frames = []
    packed = []
    size = 2
    for metric in metrics:
        try:
            raw = _encode_metric(*metric)
        except (ValueError, TypeError, StructError):
            continue
        if size + len(raw) > MAX_PAYLOAD or len(packed) == 0xFFFF:
            frames.append(encode_frame(METRIC, SHORT.pack(len(packed)) + b"".join(packed)))
            packed = []
            size = 2
        if size + len(raw) <= MAX_PAYLOAD:
            packed.append(raw)
            size += len(raw)
    if packed:
        frames.append(encode_frame(METRIC, SHORT.pack(len(packed)) + b"".join(packed)))
    return frames


def _encode_metric(name, unit, kind, value, request_ids, dimensions):
    out = [
        short_text(name),
        short_text(unit),
        METRIC_VALUE.pack(kind, value),
        short_text(request_ids),
        SHORT.pack(len(dimensions)),
    ]
    for key, text in dimensions:
        out.append(short_text(key))
        out.append(short_text(str(text)))
    return b"".join(out)
