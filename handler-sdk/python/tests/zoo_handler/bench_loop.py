"""What the worker's loop costs per item: a real worker process, a no-op handler, a scripted server end.

    python bench_loop.py [--seconds 2] [--handler noop|echo|context|metrics] [--python /usr/bin/python3]

Prints, for windows of 1 and 32 batches of one item (and one batch of 32), the worker's own processor time per
item and the wall time. The processor time is what the loop is judged by: the wall time includes this script,
which isn't fast.
"""

import argparse
import os
import struct
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from peer import Peer, batch, body, item, part  # noqa: E402

HANDLERS = {
    "noop": "def handle(data, context):\n    return data and [b'x'] * len(data)\n",
    "echo": "def handle(data, context):\n    return data and [row['body'] for row in data]\n",
    "context": (
        "def handle(data, context):\n"
        "    if data is None: return\n"
        "    for i in range(len(data)):\n"
        "        context.get_request_header(i, 'content-type')\n"
        "        context.get_request_id(i)\n"
        "        context.set_response_content_type(i, 'text/plain')\n"
        "    return [b'x'] * len(data)\n"
    ),
    "metrics": (
        "def handle(data, context):\n"
        "    if data is None: return\n"
        "    context.metrics.add_time('HandlerTime', 1.5, None, 'ms')\n"
        "    return [b'x'] * len(data)\n"
    ),
}
HEADERS = [
    ("host", "127.0.0.1:8080"),
    ("user-agent", "curl/8.5.0"),
    ("accept", "*/*"),
    ("content-length", "1"),
    ("content-type", "application/octet-stream"),
    ("x-request-id", "5f0c3a52-6f3c-4a77-9f6c-1d7d3a5f6b11"),
]


def one_item(identity, size):
    request = "5f0c3a52-6f3c-4a77-9f6c-{:012x}".format(identity)
    inline = size <= 64 * 1024
    declared = item(identity, part(bytes(size), bodies=not inline), headers=HEADERS, request_id=request)
    return declared, b"" if inline else body(identity, 0, bytes(size))


def frames(window, grouped, size, first):
    items = [one_item(first + index, size) for index in range(window)]
    if grouped:
        return batch(*[declared for declared, _ in items]) + b"".join([late for _, late in items])
    return b"".join([batch(declared) + late for declared, late in items])


def processor_time(pid):
    with open("/proc/{}/schedstat".format(pid)) as stat:
        return int(stat.read().split()[0]) / 1e3


def replies(link, count):
    """Reads so many Replies and forgets them."""
    room = bytearray(1 << 21)
    view = memoryview(room)
    unpack = struct.Struct("<IBBH").unpack_from
    have = at = 0
    while count:
        have += link.recv_into(view[have:])
        while have - at >= 8:
            length, kind, _, _ = unpack(room, at)
            if have - at < 8 + length:
                break
            at += 8 + length
            count -= kind == 0x12
        if at:
            room[: have - at] = room[at:have]
            have -= at
            at = 0


def measure(worker, window, grouped, size, seconds):
    link = worker.socket
    first = 1
    rounds = [frames(window, grouped, size, first + window * index) for index in range(8)]
    for raw in rounds:  # warm
        link.sendall(raw)
        replies(link, window)
    count = 0
    cpu = processor_time(worker.process.pid)
    started = time.perf_counter()
    while True:
        # Ids repeat: the worker doesn't look at them unless a Cancel comes.
        link.sendall(rounds[count % 8])
        replies(link, window)
        count += 1
        if time.perf_counter() - started > seconds:
            break
    wall = (time.perf_counter() - started) * 1e6
    cpu = processor_time(worker.process.pid) - cpu
    items = count * window
    return cpu / items, wall / items


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--handler", choices=sorted(HANDLERS), default="noop")
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--profile", action="store_true", help="print a profile of the worker at its end")
    options = parser.parse_args()
    os.environ["ZOO_WORKER_PYTHON"] = options.python
    source = HANDLERS[options.handler]
    if options.profile:
        source += (
            "import cProfile, atexit, pstats\n"
            "profile = cProfile.Profile()\n"
            "show = lambda: (profile.disable(), pstats.Stats(profile).sort_stats('tottime').print_stats(25))\n"
            "atexit.register(show)\n"
            "profile.enable()\n"
        )
    print(
        "{:>10} {:>8} {:>9} {:>14} {:>14}".format("window", "batch", "bytes", "cpu µs/item", "wall µs/item")
    )
    for window, grouped, size in (
        (1, False, 1),
        (32, False, 1),
        (32, True, 1),
        (1, False, 1000000),
        (8, False, 1000000),
    ):
        with tempfile.TemporaryDirectory() as directory:
            with open(os.path.join(directory, "h.py"), "w") as file:
                file.write(source)
            worker = Peer(directory)
            worker.hello()
            worker.load()
            worker.expect_loaded()
            cpu, wall = measure(worker, window, grouped, size, options.seconds)
            number = 1 if grouped else window
            print("{:>10} {:>8} {:>9} {:>14.2f} {:>14.2f}".format(number, window // number, size, cpu, wall))
            if options.profile:
                worker.drain()
                print(worker.log())
            worker.end()


if __name__ == "__main__":
    main()
