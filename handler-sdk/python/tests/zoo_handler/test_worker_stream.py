"""Answers in chunks: generators, intermediate answers, credit, cancel."""

import struct

import pytest

from peer import batch, cancel, item, part


def streaming(start, body, **load):
    """A worker whose handler has this body, for real batches only."""
    lines = "".join("    {}\n".format(line) for line in body.splitlines())
    return start(
        "from zoo_handler import PredictionException, send_intermediate_predict_response as send\n"
        "def serve(data, context):\n" + lines + "\n"
        "def handle(data, context):\n    return data and serve(data, context)\n",
        **load,
    )


def test_a_generator_streams(start):
    worker = streaming(start, "for i in range(3): yield ['chunk%d' % i]")
    head = worker.predict(part(b""))
    assert head.streams and head.status == 200 and head.headers == {"ts_stream_next": "true"}
    assert worker.chunks(1) == ([b"chunk0", b"chunk1", b"chunk2"], (200, False, ""))
    worker.drain()


def test_a_generator_of_a_single_request_may_yield_the_chunk_itself(start):
    worker = streaming(start, "yield 'a'\nyield None\nyield b'b'\nyield {'c': 1}\nyield ''")
    worker.predict(part(b""))
    assert worker.chunks(1)[0] == [b"a", b"b", b'{\n  "c": 1\n}']


def test_status_and_headers_set_before_the_first_chunk(start):
    worker = streaming(
        start,
        "context.set_response_content_type(0, 'text/event-stream')\n"
        "context.set_response_status(201, 'Streaming', 0)\n"
        "yield 'a'",
    )
    head = worker.predict(part(b""))
    assert head.status == 201
    assert head.headers == {
        "content-type": "text/event-stream",
        ":reason": "Streaming",
        "ts_stream_next": "true",
    }


def test_an_empty_generator_is_an_empty_stream(start):
    worker = streaming(start, "return\nyield")
    assert worker.predict(part(b"")).streams
    assert worker.chunks(1) == ([], (200, False, ""))


def by_item(worker, count):
    """The chunks and the ends of several streams, which come in any order."""
    chunks, ends = {}, {}
    while len(ends) < count:
        kind, _, payload = worker.receive()
        identity = struct.unpack_from("<Q", payload)[0]
        if kind == 0x13:
            chunks.setdefault(identity, []).append(payload[8:])
        elif kind == 0x14:
            ends[identity] = (*struct.unpack_from("<HB", payload, 12), payload[16:].decode())
        else:
            from peer import Reply

            reply = Reply(payload)
            if not reply.streams:
                ends[identity] = (reply.status, reply.flags, reply.body.decode())
    return chunks, ends


def test_a_generator_of_a_batch_yields_lists(start):
    worker = streaming(start, "for i in range(2): yield ['a%d' % i, None if i else 'b']")
    worker.send(batch(item(1, part(b"")), item(2, part(b""))))
    assert by_item(worker, 2) == ({1: [b"a0", b"a1"], 2: [b"b"]}, {1: (200, 0, ""), 2: (200, 0, "")})


def test_a_list_of_generators_and_whole_answers(start):
    worker = streaming(
        start,
        "def count(n):\n"
        "    for i in range(n): yield str(i)\n"
        "def ill():\n"
        "    yield 'one'\n"
        "    raise PredictionException('ill', 418)\n"
        "def ill_at_once():\n"
        "    raise PredictionException('at once', 409)\n"
        "    yield\n"
        "return [count(3), 'whole', ill(), ill_at_once(), count(1), iter(['x', object()])]",
    )
    worker.send(batch(*[item(i, part(b"")) for i in range(1, 7)]))
    chunks, ends = by_item(worker, 6)
    assert chunks == {1: [b"0", b"1", b"2"], 3: [b"one"], 5: [b"0"], 6: [b"x"]}
    assert ends == {
        1: (200, 0, ""),
        2: (200, 0, "whole"),
        3: (418, 1, "ill"),
        4: (409, 1, "at once"),
        5: (200, 0, ""),
        6: (503, 1, "Unsupported model output data type."),
    }


@pytest.mark.parametrize(
    "body, code, message",
    [
        ("yield 'a'\nraise PredictionException('late', 410)", 410, "late"),
        ("yield 'a'\nraise ValueError('late')", 503, "Prediction failed"),
        ("yield 'a'\nyield object()", 503, "Unsupported model output data type."),
        ("yield ['a']\nyield ['a', 'b']", 503, "Unsupported"),
    ],
)
def test_an_error_after_the_head_is_in_the_end(start, body, code, message):
    worker = streaming(start, body)
    if message == "Unsupported":  # a list of the wrong length is one chunk for nobody
        message = "number of batch response mismatched"
    assert worker.predict(part(b"")).streams
    assert worker.chunks(1) == ([b"a"], (code, True, message))


def test_an_error_before_the_first_chunk_is_a_whole_answer(start):
    worker = streaming(start, "raise PredictionException('early', 422)\nyield")
    reply = worker.predict(part(b""))
    assert (reply.failed, reply.streams, reply.outcome) == (True, False, (422, "early"))


def test_credit_bounds_what_is_sent(start):
    worker = streaming(start, "for i in range(6): yield b'%d' % i * 100000")
    worker.predict(part(b""))
    sent = b""
    while len(sent) < 256 * 1024:
        sent += worker.expect(0x13)[8:]
    assert len(sent) == 256 * 1024
    # What comes next is exactly what the credit allows, so nothing came without it.
    worker.credit(1, 1000)
    assert len(worker.expect(0x13)[8:]) == 1000
    chunks, end = (worker.credit(1, 400000), worker.chunks(1))[1]
    assert sent[:100000] == b"0" * 100000
    assert len(sent) + 1000 + sum(map(len, chunks)) == 600000
    assert end == (200, False, "")


def test_a_chunk_larger_than_all_credit_and_any_frame(start):
    worker = streaming(start, "yield b'x' * 3000000")
    worker.predict(part(b""))
    chunks, end = worker.chunks(1)
    assert b"".join(chunks) == b"x" * 3000000
    assert max(map(len, chunks)) <= 256 * 1024
    assert end == (200, False, "")


def test_a_slow_client_does_not_hold_up_another(start):
    worker = streaming(
        start,
        "def chunks(n, size):\n    for i in range(n): yield b'x' * size\n"
        "return [chunks(5, 100000), chunks(20, 10000)]",
    )
    worker.send(batch(item(1, part(b"")), item(2, part(b""))))
    ended = None
    sizes = {1: 0, 2: 0}
    while ended is None:
        kind, _, payload = worker.receive()
        identity = struct.unpack_from("<Q", payload)[0]
        if kind == 0x13:
            sizes[identity] += len(payload) - 8
        elif kind == 0x14:
            ended = identity
    assert ended == 2  # the first has no credit left
    assert sizes[2] == 200000
    worker.credit(1, 1 << 20)
    while True:
        kind, _, payload = worker.receive()
        if kind == 0x14:
            break
        sizes[1] += len(payload) - 8
    assert sizes[1] == 500000


@pytest.mark.parametrize(
    "body",
    [
        "try:\n    while True: yield 'x'\nfinally:\n    open('closed', 'w').close()",
        "def forever():\n    try:\n        while True: yield 'x'\n"
        "    finally:\n        open('closed', 'w').close()\nreturn [forever()]",
        "try:\n    while True: yield 'x' * 100000\nfinally:\n    open('closed', 'w').close()",
    ],
    ids=["lockstep", "each", "without credit"],
)
def test_cancel_ends_a_stream_at_its_next_yield(start, body):
    worker = streaming(start, body)
    assert worker.predict(part(b"")).streams
    worker.send(cancel(1))
    assert worker.chunks(1, credit=False)[1] == (499, True, "Cancelled")
    worker.wait_for_file("closed")
    worker.drain()


def test_intermediate_answers(start):
    worker = streaming(
        start,
        "for i in range(3):\n"
        "    chunks = ['%s%d' % (bytes(row['body']).decode(), i) for row in data]\n"
        "    send(chunks, context.request_ids, 'Prediction success', 200, context)\n"
        "return ['last'] * len(data)",
    )
    worker.send(batch(item(1, part(b"a")), item(2, part(b"b"))))
    chunks, ends = by_item(worker, 2)
    assert chunks == {1: [b"a0", b"a1", b"a2", b"last"], 2: [b"b0", b"b1", b"b2", b"last"]}
    assert ends == {1: (200, 0, ""), 2: (200, 0, "")}


def test_intermediate_answers_are_sent_at_once(start):
    worker = streaming(
        start,
        "import os, time\n"
        "send(['first'], context.request_ids, 'Prediction success', 200, context)\n"
        "until = time.monotonic() + 30\n"
        "while not os.path.exists('go') and time.monotonic() < until: time.sleep(0.002)\n"
        "return ['last']",
    )
    assert worker.predict(part(b"")).streams
    assert worker.expect(0x13)[8:] == b"first"
    with open(worker.directory + "/go", "w"):
        pass
    assert worker.chunks(1) == ([b"last"], (200, False, ""))


def test_an_error_after_an_intermediate_answer(start):
    worker = streaming(
        start,
        "send(['first'], context.request_ids, 'Prediction success', 200, context)\n"
        "raise PredictionException('x', 430)",
    )
    assert worker.predict(part(b"")).streams
    assert worker.chunks(1) == ([b"first"], (430, True, "x"))


def test_intermediate_answers_of_other_ranks_are_not_sent(start):
    worker = streaming(
        start,
        "send(['first'], context.request_ids, 'Prediction success', 200, context)\nreturn ['whole']",
        environment={"LOCAL_RANK": "1"},
    )
    assert worker.text(part(b"")) == "whole"


def test_batches_after_a_stream(start):
    worker = streaming(start, "return (iter(['a', 'b']) for _ in [0]) if False else [iter('ab')]")
    worker.send(batch(item(1, part(b""))), batch(item(2, part(b""))))
    assert by_item(worker, 2) == ({1: [b"a", b"b"], 2: [b"a", b"b"]}, {1: (200, 0, ""), 2: (200, 0, "")})


def test_the_server_leaves_while_a_stream_waits_for_credit(start):
    worker = streaming(
        start,
        "try:\n    while True: yield b'x' * 100000\nexcept Exception:\n    open('swallowed', 'w').close()",
    )
    worker.predict(part(b""))
    worker.socket.close()
    assert worker.wait() == 0


def test_the_server_leaves_while_a_handler_that_swallows_errors_streams(start):
    worker = streaming(
        start,
        "while True:\n"
        "    try:\n"
        "        send(['x' * 100000], context.request_ids, 'Prediction success', 200, context)\n"
        "    except Exception:\n"
        "        pass\n",
    )
    worker.predict(part(b""))
    worker.socket.close()
    assert worker.wait() == 0
