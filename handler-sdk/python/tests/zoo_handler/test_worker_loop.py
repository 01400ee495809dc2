"""The life of a worker on the link: start, batches, cancel, drain, ends of all kinds."""

import struct

import peer as wire
from peer import batch, body, cancel, frame, item, part

ECHO = """
def handle(data, context):
    if data is not None:
        return [bytes(row.get("body") or row.get("data")) for row in data]
"""

# Blocks until the test makes a file, so that the test decides what arrives while a handler runs.
GATED = """
import os, time
def handle(data, context):
    if data is None:
        return
    open("begun", "w").close()
    until = time.monotonic() + 30
    while not os.path.exists("go") and time.monotonic() < until:
        time.sleep(0.002)
    return [bytes(row["body"]) for row in data]
"""


def go(worker):
    with open(worker.directory + "/go", "w"):
        pass


def test_echo_and_drain(start):
    worker = start(ECHO)
    assert worker.loaded == {"concurrency": 1, "signature": None, "describes": True}
    reply = worker.predict(part(b"hello"))
    assert (reply.item, reply.status, reply.body, reply.headers, reply.flags) == (1, 200, b"hello", {}, 0)
    worker.drain()
    assert "Torch worker started." in worker.log()


def test_batch_of_many_keeps_order_and_ids(start):
    worker = start(ECHO)
    worker.send(batch(*[item(i, part(str(i).encode())) for i in range(1, 17)]))
    assert [(r.item, r.body) for r in (worker.reply() for _ in range(16))] == [
        (i, str(i).encode()) for i in range(1, 17)
    ]


def test_batch_over_several_frames_is_one_call(start):
    worker = start("def handle(data, context):\n    return data and [str(len(data))] * len(data)\n")
    worker.send(batch(item(1, part(b"a")), item(2, part(b"b")), more=True), batch(item(3, part(b"c"))))
    assert {i: r.body for i, r in worker.replies(3).items()} == {1: b"3", 2: b"3", 3: b"3"}


def test_frames_in_single_bytes(start):
    worker = start(ECHO)
    raw = batch(item(1, part(b"", bodies=False), part(b"abc", "data", bodies=True)))
    # The declared length comes from the value, so this part is 3 bytes that follow.
    for byte in raw + body(1, 0, b"a", 1) + body(1, 1, b"bc", 1) + batch(item(2, part(b"next"))):
        worker.send(bytes([byte]))
    assert worker.reply().body == b"abc"
    assert worker.reply().body == b"next"


def test_large_body_is_received_in_place_and_large_answer_in_pieces(start):
    worker = start(
        "def handle(data, context):\n"
        "    return data and [type(row['body']).__name__.encode() + bytes(row['body']) for row in data]\n"
    )
    value = bytes(range(256)) * 16384  # 4 MiB: more than one frame in both directions
    pieces = [body(1, at, value[at : at + 1000000]) for at in range(0, len(value), 1000000)]
    worker.send(batch(item(1, part(value, bodies=True))), *pieces)
    reply = worker.reply()
    assert reply.body == b"bytearray" + value
    assert reply.frames > 1


def test_bodies_of_two_batches_may_alternate(start):
    worker = start(ECHO)
    worker.send(
        batch(item(1, part(b"xxxx", bodies=True))),
        batch(item(2, part(b"yyyy", bodies=True))),
        body(2, 0, b"2222"),
        body(1, 0, b"11"),
        body(1, 2, b"11"),
    )
    assert [(r.item, r.body) for r in (worker.reply(), worker.reply())] == [(1, b"1111"), (2, b"2222")]


def test_largest_frame(start):
    worker = start("def handle(data, context):\n    return data and [str(len(data[0]['body']))]\n")
    size = (1 << 20) - len(batch(item(1, part(b"")))) + 8
    worker.send(batch(item(1, part(bytes(size)))))
    assert worker.reply().body == str(size).encode()


def test_too_long_frame_ends_the_worker(start):
    worker = start(ECHO)
    worker.send(struct.pack("<IBBH", (1 << 20) + 1, 0x10, 0, 0))
    assert worker.receive() is None
    assert worker.wait() == 1
    assert "1048577 bytes, at most 1048576" in worker.log()


def test_unknown_frames_and_flags_are_skipped(start):
    worker = start(ECHO)
    worker.send(frame(0x7F, b"from the future"), frame(0x10, batch(item(1, part(b"x")))[8:], flags=0xF0))
    assert worker.reply().body == b"x"


def test_other_major_version_is_refused(start):
    worker = start(ECHO, ready=False)
    other = start(ECHO, ready=False)
    other.expect(0x01)
    assert worker.expect(0x01)[:4] == struct.pack("<HH", 1, 0)
    peer = wire.Peer(worker.directory)
    peer.hello(major=2)
    assert peer.wait() == 1
    assert "2.0" in peer.log()
    peer.end()


def test_newer_minor_version_is_accepted(start, tmp_path):
    (tmp_path / "h.py").write_text(ECHO)
    worker = wire.Peer(str(tmp_path))
    worker.hello(minor=9)
    worker.load()
    worker.expect_loaded()
    worker.end()


def test_drain_before_load(tmp_path):
    worker = wire.Peer(str(tmp_path))
    worker.hello()
    worker.send(frame(0x32))
    worker.expect(0x01)
    worker.expect(0x33)
    assert worker.wait() == 0
    worker.end()


def test_ping(start):
    worker = start(ECHO)
    worker.send(frame(0x30, struct.pack("<Q", 77)))
    assert worker.expect(0x31) == struct.pack("<Q", 77)


def test_cancel_drops_what_has_not_begun(start):
    worker = start(GATED)
    worker.send(batch(item(1, part(b"1"))))
    worker.wait_for_file("begun")
    worker.send(batch(item(2, part(b"2"))), batch(item(3, part(b"3")), item(4, part(b"4"))), cancel(2, 3))
    go(worker)
    replies = worker.replies(4)
    assert {i: r.cancelled for i, r in replies.items()} == {1: False, 2: True, 3: True, 4: False}
    assert replies[4].body == b"4"


def test_cancel_drops_what_was_read_and_has_not_begun(start):
    worker = start(GATED)
    # One write, so that the worker has read both batches when the first begins.
    worker.send(batch(item(1, part(b"1"))) + batch(item(2, part(b"2"))))
    worker.wait_for_file("begun")
    worker.send(cancel(2))
    go(worker)
    assert {i: r.cancelled for i, r in worker.replies(2).items()} == {1: False, 2: True}


def test_cancel_of_answered_and_unknown_items_changes_nothing(start):
    worker = start(ECHO)
    assert worker.predict(part(b"a")).body == b"a"
    worker.send(cancel(1), cancel(2), cancel(900))
    assert worker.predict(part(b"b")).body == b"b"


def test_running_item_sees_its_cancel(start):
    worker = start(
        "import time\n"
        "def handle(data, context):\n"
        "    if data is None: return\n"
        "    open('begun', 'w').close()\n"
        "    until = time.monotonic() + 30\n"
        "    while not context.is_cancelled(1) and time.monotonic() < until: time.sleep(0.002)\n"
        "    return [str(context.is_cancelled(0)), str(context.is_cancelled(1))]\n"
    )
    worker.send(batch(item(1, part(b"")), item(2, part(b""))))
    worker.wait_for_file("begun")
    worker.send(cancel(2))
    replies = worker.replies(2)
    assert (replies[1].body, replies[2].body) == (b"False", b"True")
    assert not replies[2].cancelled


def test_drain_answers_what_was_sent_before(start):
    worker = start(GATED)
    worker.send(batch(item(1, part(b"1"))))
    worker.wait_for_file("begun")
    worker.send(batch(item(2, part(b"2"))), frame(0x32))
    go(worker)
    assert sorted(worker.replies(2)) == [1, 2]
    worker.expect(0x33)
    assert worker.receive() is None
    assert worker.wait() == 0


def test_closed_link_ends_the_worker(start):
    worker = start(ECHO)
    worker.predict(part(b"x"))
    worker.socket.close()
    assert worker.wait() == 0


def test_closed_link_ends_the_worker_in_spite_of_threads(start):
    worker = start(
        "import threading\nthreading.Thread(target=threading.Event().wait).start()\n" + ECHO,
    )
    worker.socket.close()
    assert worker.wait() == 0


def test_drain_ends_the_worker_in_spite_of_threads_and_runs_exit_functions(start):
    worker = start(
        "import atexit, threading\n"
        "atexit.register(print, 'bye from atexit')\n"
        "threading.Thread(target=threading.Event().wait).start()\n" + ECHO,
    )
    worker.drain()
    assert "bye from atexit" in worker.log()


def test_sys_exit_in_handle_ends_the_worker_after_what_was_answered(start):
    worker = start(
        "import sys\n"
        "def handle(data, context):\n"
        "    if data is None: return\n"
        "    if data[0]['body'] == b'exit': sys.exit(3)\n"
        "    return [bytes(row['body']) for row in data]\n"
    )
    worker.send(batch(item(1, part(b"a"))), batch(item(2, part(b"exit"))), batch(item(3, part(b"c"))))
    assert worker.reply().item == 1
    assert worker.receive() is None
    assert worker.wait() == 3
    assert "sys.exit(3)" in worker.log()


def test_fork_that_returns_from_the_handler_never_writes(start):
    worker = start(
        "import os\n"
        "def handle(data, context):\n"
        "    if data is None: return\n"
        "    pid = os.fork()\n"
        "    if pid: os.waitpid(pid, 0)\n"
        "    return ['child' if pid == 0 else 'parent']\n"
    )
    assert worker.text(part(b"")) == "parent"
    assert worker.text(part(b"")) == "parent"
    worker.drain()


def test_fork_that_raises_or_polls_in_the_handler_never_writes(start):
    worker = start(
        "import os\n"
        "def handle(data, context):\n"
        "    if data is None: return\n"
        "    pid = os.fork()\n"
        "    if pid == 0:\n"
        "        context.is_cancelled()\n"
        "        raise ValueError('in the child')\n"
        "    return [str(os.waitpid(pid, 0)[1])]\n"
    )
    assert worker.text(part(b"")) == "0"
    worker.drain()


def test_child_processes_do_not_hold_the_link(start):
    worker = start(
        "import os, subprocess\n"
        "def handle(data, context):\n"
        "    if data is None: return\n"
        "    child = subprocess.Popen(['sleep', '60'], close_fds=False)\n"
        "    return [str(child.pid)]\n"
    )
    pid = int(worker.text(part(b"")))
    try:
        worker.drain()
    finally:
        import os
        import signal

        os.kill(pid, signal.SIGKILL)


def test_a_handlers_pool_of_processes_works(start):
    worker = start(
        "import multiprocessing\n"
        "def square(n): return n * n\n"
        "def handle(data, context):\n"
        "    if data is None: return\n"
        "    with multiprocessing.get_context('fork').Pool(2) as pool:\n"
        "        return [str(pool.map(square, [1, 2, 3]))]\n"
    )
    assert worker.text(part(b"")) == "[1, 4, 9]"
    worker.drain()


def test_standard_input_is_empty_and_the_link_is_not_inherited(start):
    worker = start(
        "import os, sys\n"
        "def handle(data, context):\n"
        "    return data and [repr(sys.stdin.read()) + os.readlink('/proc/self/fd/0')]\n"
    )
    assert worker.text(part(b"")) == "''/dev/null"


def test_what_was_printed_before_a_crash_is_not_lost(start):
    worker = start(
        "import os\n"
        "def handle(data, context):\n"
        "    if data is None: return\n"
        "    print('last words')\n"
        "    os._exit(9)\n",
        environment={"PYTHONUNBUFFERED": ""},
    )
    worker.send(batch(item(1, part(b""))))
    assert worker.receive() is None
    assert worker.wait() == 9
    assert "last words" in worker.log()


def test_interrupt_from_the_terminal_is_the_servers_to_handle(start):
    import signal

    worker = start(ECHO)
    worker.process.send_signal(signal.SIGINT)
    assert worker.predict(part(b"still here")).body == b"still here"
    worker.process.send_signal(signal.SIGTERM)
    assert worker.wait() == -signal.SIGTERM


def test_an_idle_worker_is_small(start):
    worker = start(ECHO)
    worker.predict(part(b"x"))
    with open("/proc/{}/status".format(worker.process.pid)) as status:
        rss = next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
    assert rss < 25 * 1024


def test_heavy_modules_are_not_imported(start):
    worker = start(
        "import sys\n"
        "def handle(data, context):\n"
        "    heavy = ('asyncio', 'concurrent', 'inspect', 'typing')\n"
        "    return data and [' '.join(name for name in heavy if name in sys.modules)]\n"
    )
    assert worker.text(part(b"{}", content_type="application/json")) == ""
