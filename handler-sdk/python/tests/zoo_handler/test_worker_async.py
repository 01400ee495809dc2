"""Asynchronous handlers: several batches at a time, answers in any order, streams, cancel, ends."""

import struct

import pytest

from peer import Reply, batch, cancel, frame, item, part

# Answers 'slow' only after 'fast' was handled, so that the order of answers proves that both ran at a time.
OVERLAP = """
import asyncio
event = asyncio.Event()
async def handle(data, context):
    if data is None:
        return
    text = bytes(data[0]['body']).decode()
    if text == 'slow':
        await asyncio.wait_for(event.wait(), 30)
    if text == 'fast':
        event.set()
    return [text + ' ' + context.get_request_id(0)]
"""


def test_batches_overlap_and_answers_come_in_any_order(start):
    worker = start(OVERLAP, concurrency=4)
    assert worker.loaded["concurrency"] == 4
    worker.send(batch(item(1, part(b"slow"))), batch(item(2, part(b"fast"))))
    assert [(r.item, r.body) for r in (worker.reply(), worker.reply())] == [(2, b"fast r2"), (1, b"slow r1")]
    worker.drain()


def test_no_more_batches_at_a_time_than_agreed(start):
    worker = start(
        "import asyncio\n"
        "now = most = 0\n"
        "async def handle(data, context):\n"
        "    global now, most\n"
        "    if data is None: return\n"
        "    now += 1\n"
        "    most = max(most, now)\n"
        "    for _ in range(10): await asyncio.sleep(0)\n"
        "    now -= 1\n"
        "    return [str(most)]\n",
        concurrency=3,
    )
    worker.send(*[batch(item(i, part(b""))) for i in range(1, 20)])
    assert max(int(r.body) for r in worker.replies(19).values()) == 3


CLASS = """
import asyncio
class MyHandler:
    {}def initialize(self, context):
        self.name = context.model_name
        {}
    async def handle(self, data, context):
        await asyncio.sleep(0)
        return [self.name] * len(data)
"""


@pytest.mark.parametrize(
    "source, load",
    [
        (CLASS.format("", "pass"), {}),
        (CLASS.format("async ", "await asyncio.sleep(0)"), {}),
        (CLASS.format("", "asyncio.run(asyncio.sleep(0))"), {}),
        (CLASS.format("", "asyncio.get_event_loop().run_until_complete(asyncio.sleep(0))"), {}),
        ("def handle(data, context):\n    return data and ['m']\n", {"asynchronous": True}),
        (
            "async def real(data, context):\n    return ['m']\n"
            "def handle(data, context):\n    return data and real(data, context)\n",
            {"asynchronous": True},
        ),
    ],
)
def test_kinds_of_handlers(start, source, load):
    worker = start(source, **load)
    assert worker.text(part(b"")) == "m"
    worker.drain()


def test_load_failure(start):
    worker = start("async def handle(data, context):\n    raise ValueError('early')\n", ready=False)
    assert worker.expect_load_failed()["message"] == "ValueError: early"


def answering(start, body, **load):
    lines = "".join("    {}\n".format(line) for line in body.splitlines())
    return start(
        "import asyncio\n"
        "from zoo_handler import PredictionException, send_intermediate_predict_response as send\n"
        "async def handle(data, context):\n    if data is None:\n        return\n" + lines,
        **load,
    )


@pytest.mark.parametrize(
    "body, outcomes",
    [
        ("return ['a', b'b']", [(200, "a"), (200, "b")]),
        ("raise PredictionException('all', 409)", [(409, "all")] * 2),
        ("raise MemoryError", [(507, "Out of resources")] * 2),
        ("raise asyncio.CancelledError", [(503, "Prediction failed")] * 2),
        ("return None", [(503, "Invalid model predict output")] * 2),
        ("return ['a']", [(503, "number of batch response mismatched")] * 2),
        ("return ['a', PredictionException('b', 418)]", [(200, "a"), (418, "b")]),
    ],
)
def test_answers_and_failures(start, body, outcomes):
    worker = answering(start, body)
    for _ in range(2):
        worker.send(batch(item(1, part(b"")), item(2, part(b""))))
        replies = worker.replies(2)
        assert [replies[1].outcome, replies[2].outcome] == outcomes


def test_each_batch_has_a_context_of_its_own(start):
    worker = answering(
        start,
        "context.set_response_header(0, 'x-id', context.get_request_id(0))\n"
        "context.set_response_status(200 + len(data[0]['body']), 'Fine', 0)\n"
        "context.metrics.add_counter('seen', 1)\n"
        "await asyncio.sleep(0)\n"
        "return ['x']",
        concurrency=8,
    )
    worker.send(*[batch(item(i, part(b"." * i))) for i in range(1, 9)])
    replies, metrics = {}, b""
    while len(replies) < 8:
        kind, _, payload = worker.receive()
        if kind == 0x20:
            metrics += payload
        else:
            reply = Reply(payload)
            replies[reply.item] = reply
    assert {i: (r.status, r.headers["x-id"]) for i, r in replies.items()} == {
        i: (200 + i, "r{}".format(i)) for i in range(1, 9)
    }
    for i in range(1, 9):
        assert metrics.count(b"\x02\x00r%d" % i) == 1


def test_attributes_of_the_context_are_shared(start):
    worker = start(
        "async def handle(data, context):\n"
        "    if data is None:\n"
        "        context.cache = []\n"
        "        return\n"
        "    context.cache.append(1)\n"
        "    return [str(len(context.cache))]\n"
    )
    assert [worker.text(part(b"")) for _ in range(3)] == ["1", "2", "3"]


def test_an_async_generator_streams(start):
    worker = answering(start, "for i in range(3):\n    await asyncio.sleep(0)\n    yield ['chunk%d' % i]")
    assert worker.predict(part(b"")).streams
    assert worker.chunks(1) == ([b"chunk0", b"chunk1", b"chunk2"], (200, False, ""))


def test_streams_of_a_list_and_failures_in_them(start):
    worker = answering(
        start,
        "async def count(n):\n"
        "    for i in range(n):\n"
        "        await asyncio.sleep(0)\n"
        "        yield str(i)\n"
        "async def ill():\n"
        "    yield 'one'\n"
        "    raise PredictionException('ill', 418)\n"
        "async def ill_at_once():\n"
        "    raise PredictionException('at once', 409)\n"
        "    yield\n"
        "return [count(3), 'whole', ill(), ill_at_once(), iter(['x', object()])]",
    )
    worker.send(batch(*[item(i, part(b"")) for i in range(1, 6)]))
    chunks, ends = {}, {}
    while len(ends) < 5:
        kind, _, payload = worker.receive()
        identity = struct.unpack_from("<Q", payload)[0]
        if kind == 0x13:
            chunks.setdefault(identity, []).append(payload[8:])
        elif kind == 0x14:
            ends[identity] = (*struct.unpack_from("<HB", payload, 12), payload[16:].decode())
        elif not Reply(payload).streams:
            ends[identity] = (Reply(payload).status, Reply(payload).flags, Reply(payload).body.decode())
    assert chunks == {1: [b"0", b"1", b"2"], 3: [b"one"], 5: [b"x"]}
    assert ends == {
        1: (200, 0, ""),
        2: (200, 0, "whole"),
        3: (418, 1, "ill"),
        4: (409, 1, "at once"),
        5: (503, 1, "Unsupported model output data type."),
    }


@pytest.mark.parametrize(
    "body",
    [
        "async def chunks():\n    for i in range(6): yield b'%d' % i * 100000\nreturn [chunks()]",
        "for i in range(5): send([b'%d' % i * 100000], context.request_ids, 'Prediction success', 200, context)\n"
        "return [b'5' * 100000]",
        "def in_a_thread():\n"
        "    for i in range(5): send([b'%d' % i * 100000], context.request_ids, 'Prediction success', 200, context)\n"
        "await asyncio.get_event_loop().run_in_executor(None, in_a_thread)\n"
        "return [b'5' * 100000]",
    ],
    ids=["generator", "intermediate", "intermediate from a thread"],
)
def test_credit(start, body):
    worker = answering(start, body)
    assert worker.predict(part(b"")).streams
    sent = b""
    while len(sent) < 256 * 1024:
        sent += worker.expect(0x13)[8:]
    assert len(sent) == 256 * 1024
    worker.send(frame(0x30, bytes(8)))
    worker.expect(0x31)  # and no chunk in front of it
    worker.credit(1, 1000)
    sent += worker.expect(0x13)[8:]
    assert len(sent) == 256 * 1024 + 1000
    worker.credit(1, 400000)
    chunks, end = worker.chunks(1)
    assert sent + b"".join(chunks) == b"".join(b"%d" % i * 100000 for i in range(6))
    assert end == (200, False, "")
    worker.drain()


def test_a_stream_without_credit_does_not_hold_up_other_batches(start):
    worker = answering(
        start,
        "async def chunks():\n    for i in range(6): yield b'x' * 100000\n"
        "return [chunks() if data[0]['body'] == b'stream' else 'whole']",
        concurrency=2,
    )
    worker.send(batch(item(1, part(b"stream"))))
    assert worker.reply().streams
    size = 0
    while size < 256 * 1024:
        size += len(worker.expect(0x13)) - 8
    worker.send(batch(item(2, part(b"whole"))))
    assert worker.reply().body == b"whole"


@pytest.mark.parametrize("size", [1, 100000], ids=["at the next yield", "without credit"])
def test_cancel_ends_a_stream(start, size):
    worker = answering(
        start,
        "async def forever():\n"
        "    try:\n"
        "        while True:\n"
        "            await asyncio.sleep(0)\n"
        "            yield b'x' * {}\n"
        "    finally:\n"
        "        open('closed', 'w').close()\n"
        "return [forever()]".format(size),
    )
    worker.send(batch(item(1, part(b""))))
    assert worker.reply().streams
    worker.send(cancel(1))
    assert worker.chunks(1, credit=False)[1] == (499, True, "Cancelled")
    worker.wait_for_file("closed")
    worker.drain()


@pytest.mark.parametrize(
    "waiting", ["await asyncio.sleep(0.002)", "time.sleep(0.002)"], ids=["awaits", "computes"]
)
def test_a_running_item_sees_its_cancel(start, waiting):
    worker = answering(
        start,
        "import time\n"
        "open('begun', 'w').close()\n"
        "until = time.monotonic() + 30\n"
        "while not context.is_cancelled() and time.monotonic() < until: " + waiting + "\n"
        "return [str(context.is_cancelled())]",
    )
    worker.send(batch(item(1, part(b""))))
    worker.wait_for_file("begun")
    worker.send(cancel(1))
    reply = worker.reply()
    assert (reply.body, reply.cancelled) == (b"True", False)


def test_cancel_drops_what_has_not_begun(start):
    worker = answering(
        start,
        "import os\n"
        "open('begun', 'w').close()\n"
        "while not os.path.exists('go'): await asyncio.sleep(0.002)\n"
        "return ['x'] * len(data)",
        concurrency=1,
    )
    worker.send(batch(item(1, part(b""))))
    worker.wait_for_file("begun")
    worker.send(batch(item(2, part(b"")), item(3, part(b""))), batch(item(4, part(b""))), cancel(2, 4))
    with open(worker.directory + "/go", "w"):
        pass
    assert {i: r.cancelled for i, r in worker.replies(4).items()} == {1: False, 2: True, 3: False, 4: True}
    worker.drain()


def test_closed_link_ends_the_worker(start):
    worker = answering(start, "await asyncio.Event().wait()")
    worker.send(batch(item(1, part(b""))))
    worker.socket.close()
    assert worker.wait() == 0


def test_damaged_frames_end_the_worker(start):
    worker = answering(start, "return ['x']")
    worker.send(frame(0x10, b"\x01"))
    assert worker.receive() is None
    assert worker.wait() == 1
    assert "ProtocolError" in worker.log()


def test_sys_exit_ends_the_worker_after_what_was_answered(start):
    worker = answering(
        start, "if data[0]['body'] == b'exit': raise SystemExit(4)\nreturn ['x']", concurrency=1
    )
    worker.send(batch(item(1, part(b""))), batch(item(2, part(b"exit"))))
    assert worker.reply().item == 1
    assert worker.receive() is None
    assert worker.wait() == 4


def test_drain_waits_for_what_runs(start):
    worker = start(OVERLAP, concurrency=4)
    worker.send(batch(item(1, part(b"slow"))), batch(item(2, part(b"fast"))), frame(0x32))
    assert sorted(worker.replies(2)) == [1, 2]
    worker.expect(0x33)
    assert worker.wait() == 0


def test_fork_never_writes_and_leaves_the_parent_alone(start):
    worker = answering(
        start,
        "import os\npid = os.fork()\nif pid: os.waitpid(pid, 0)\nreturn ['child' if pid == 0 else 'parent']",
    )
    assert worker.text(part(b"")) == "parent"
    assert worker.text(part(b"")) == "parent"
    worker.drain()
