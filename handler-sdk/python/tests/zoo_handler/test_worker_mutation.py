"""Damaged frames: whatever bytes come, reading ends in a protocol error or at the end of the link."""

import logging
import random
import socket

import pytest

from peer import batch, body, cancel, frame, item, part
from zoo_handler.errors import LinkClosed, LinkError
from zoo_handler.inbox import Inbox
from zoo_handler.link import Link

HEADERS = [("content-type", "text/plain"), ("x-request-id", "5f0c")]


@pytest.fixture(autouse=True)
def quiet():
    """Thousands of warnings about values that aren't what they say would be kept by pytest."""
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


def corpus():
    """One of each frame that a server sends."""
    return b"".join(
        [
            frame(0x01, b"\x01\x00\x00\x00{}"),
            frame(0x02, b'{"model": {}}'),
            batch(item(1, part(b"abc"), headers=HEADERS, url_path="v1")),
            batch(
                item(2, part(b"[1]", "a", "application/json"), part(b"\xff", "b", "text/x"), headers=HEADERS)
            ),
            batch(
                item(3, part(b"0123456789", bodies=True), part(b"xx", "c", "text/x", bodies=True)), more=True
            ),
            batch(item(4)),
            body(3, 0, b"01234"),
            body(3, 5, b"56789"),
            body(3, 0, b"xx", 1),
            cancel(1, 4),
            frame(0x15, bytes(16)),
            frame(0x17, b"\x05" + bytes(7) + b"\x02\x00ab"),
            frame(0x30, bytes(8)),
            frame(0x7E, b"unknown"),
            frame(0x32),
        ]
    )


def read_all(raw):
    """Reads these bytes as a worker does, and looks at everything that came of them. Returns the batches."""
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    ours.settimeout(10)
    theirs.settimeout(10)  # a read that waits for more than there is fails, it doesn't hang
    inbox = Inbox()
    inbox.max_body = 1 << 20  # a damaged length must not take the memory of the machine
    link = Link(theirs, inbox)
    inbox.attach(link)
    try:
        ours.sendall(raw)
        ours.close()
        while True:
            inbox.receive(True)
    except LinkError as cause:
        end = cause
    finally:
        ours.close()
        theirs.close()
    try:
        for found in inbox.batches:
            if not found.missing and not found.more:
                found.decode(True)
            for one in found.items:
                assert isinstance(one.headers, dict)
                assert isinstance(one.request_id + one.url_path, str)
    except LinkError as cause:
        end = cause
    return list(inbox.batches), end


def test_the_corpus_itself_is_sound():
    batches, end = read_all(corpus())
    assert isinstance(end, LinkClosed)
    assert [[one.id for one in found.items] for found in batches] == [[1], [2], [3, 4], [5]]
    assert batches[1].data == [{"a": [1], "b": bytearray(b"\xff")}]
    assert batches[2].data == [{"body": bytearray(b"0123456789"), "c": "xx"}, {}]
    assert not any(found.missing or found.more for found in batches)


def test_every_truncation_ends():
    raw = corpus()
    for size in range(len(raw)):
        _, end = read_all(raw[:size])
        assert isinstance(end, LinkClosed), size


@pytest.mark.parametrize("seed", range(4))
def test_mutations_end(seed):
    source = random.Random(seed)
    raw = corpus()
    outcomes = set()
    for _ in range(400):
        changed = bytearray(raw)
        for _ in range(source.choice((1, 1, 2, 8))):
            at = source.randrange(len(changed))
            what = source.randrange(4)
            if what == 0:
                changed[at] = source.randrange(256)
            elif what == 1:
                changed[at] ^= 1 << source.randrange(8)
            elif what == 2:
                del changed[at : at + source.randrange(1, 9)]
            else:
                changed[at:at] = bytes(source.randrange(256) for _ in range(source.randrange(1, 9)))
        outcomes.add(type(read_all(bytes(changed))[1]).__name__)
    assert outcomes == {"LinkClosed", "ProtocolError"}


@pytest.mark.parametrize("seed", range(20))
def test_random_bytes_end(seed):
    source = random.Random(seed)
    read_all(bytes(source.randrange(256) for _ in range(20000)))


@pytest.mark.parametrize(
    "raw",
    [
        batch(item(1, part(bytes(8), bodies=True))).replace(b"\x08" + bytes(7), b"\xff" * 8),
        body(1, 0, b"x"),
        batch(item(1, part(b"ab", bodies=True))) + body(1, 1, b"b"),
        batch(item(1, part(b"ab", bodies=True))) + body(1, 0, b"abc"),
        batch(item(1, part(b"ab", bodies=True))) + body(1, 0, b"ab") + body(1, 2, b""),
        frame(0x11, b"short"),
        frame(0x10, b"\x01"),
        frame(0x10, b"\x02\x00\x00\x00"),
        frame(0x15, b"short"),
        frame(0x16, b"short"),
        frame(0x17, b"short"),
        frame(0x01, b"\x01"),
    ],
)
def test_a_real_worker_leaves_with_a_reason(start, raw):
    worker = start("def handle(data, context):\n    return data and ['x'] * len(data)\n")
    worker.send(raw)
    assert worker.receive() is None
    assert worker.wait() == 1
    assert "ProtocolError" in worker.log()


def test_a_declared_length_above_the_largest_request(start):
    worker = start("def handle(data, context):\n    return data and ['x']\n", max_request_bytes=100)
    worker.send(batch(item(1, part(bytes(60), bodies=True))), body(1, 0, bytes(60)))
    assert worker.reply().body == b"x"
    worker.send(batch(item(2, part(bytes(60), bodies=True), part(bytes(60), "b", bodies=True))))
    assert worker.receive() is None
    assert worker.wait() == 1
    assert "item 2 declares bodies of 120 bytes, at most 100" in worker.log()


def test_an_error_before_load(tmp_path):
    from peer import Peer

    for raw in (frame(0x02, b"{}"), frame(0x01, bytes(4)), frame(0x02, b"not json"), b"\xff" * 64):
        worker = Peer(str(tmp_path))
        worker.send(raw)
        worker.expect(0x01)
        worker.socket.shutdown(socket.SHUT_WR)
        assert worker.receive() is None
        assert worker.wait() in (0, 1)
        worker.end()
