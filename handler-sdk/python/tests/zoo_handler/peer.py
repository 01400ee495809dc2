"""The server's end of a link, by hand: starts a real worker process and says to it exactly what a test wants.

It packs frames with structs of its own, so that a wrong struct in ``zoo_handler.wire`` can't agree with
itself.
"""

import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
import time

SDK = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
LIMIT = 30.0  # seconds that any wait may take


class Reply:
    def __init__(self, payload):
        fields = struct.unpack_from("<QQIIHBBI", payload)
        self.item, self.size, header_size, self.handler_us, self.status, self.flags = fields[:6]
        self.headers = {}
        at, end = 32, 32 + header_size
        while at < end:
            (size,) = struct.unpack_from("<H", payload, at)
            name = payload[at + 2 : at + 2 + size].decode()
            at += 2 + size
            (size,) = struct.unpack_from("<I", payload, at)
            self.headers[name] = payload[at + 4 : at + 4 + size].decode()
            at += 4 + size
        self.body = payload[end:]
        self.failed = bool(self.flags & 1)
        self.cancelled = bool(self.flags & 2)
        self.streams = bool(self.flags & 8)
        self.frames = 1

    @property
    def outcome(self):
        """Status and text, the two that most tests compare."""
        return self.status, self.body.decode()


def part(value, name="body", content_type="", bodies=False):
    head = struct.pack("<QHHBBH", len(value), len(name), len(content_type), 1 if bodies else 0, 0, 0)
    return head + name.encode() + content_type.encode() + (b"" if bodies else value)


def header_block(headers):
    out = b""
    for name, value in headers:
        raw, text = name.encode(), value.encode()
        out += struct.pack("<H", len(raw)) + raw + struct.pack("<I", len(text)) + text
    return out


def item(identity, *parts, headers=(), request_id=None, url_path="", explain=False, timeout=0):
    request = (request_id or "r{}".format(identity)).encode()
    path = url_path.encode()
    block = header_block(headers)
    head = struct.pack(
        "<QIIHHHBB", identity, timeout, len(block), len(request), len(path), len(parts), int(explain), 0
    )
    return head + request + path + block + b"".join(parts)


def frame(kind, payload=b"", flags=0):
    return struct.pack("<IBBH", len(payload), kind, flags, 0) + payload


def batch(*items, more=False):
    return frame(0x10, struct.pack("<HH", len(items), 0) + b"".join(items), int(more))


def body(identity, offset, value, number=0):
    return frame(0x11, struct.pack("<QQHHI", identity, offset, number, 0, 0) + value)


def cancel(*identities):
    return frame(0x16, struct.pack("<{}Q".format(len(identities)), *identities))


class Peer:
    def __init__(self, directory, environment=None):
        ours, theirs = socket.socketpair()
        ours.settimeout(LIMIT)
        self.socket = ours
        self.directory = directory
        self.output = tempfile.TemporaryFile()
        self.buffer = b""
        variables = {**os.environ, "PYTHONPATH": directory, **(environment or {})}
        self.process = subprocess.Popen(
            [
                os.environ.get("ZOO_WORKER_PYTHON", sys.executable),
                os.path.join(SDK, "zoo_worker.py"),
                "W-9000-m_1.0",
            ],
            stdin=theirs,
            stdout=self.output,
            stderr=subprocess.STDOUT,
            cwd=directory,
            env=variables,
        )
        theirs.close()

    def end(self):
        self.socket.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.output.close()

    def send(self, *frames):
        self.socket.sendall(b"".join(frames))

    def hello(self, major=1, minor=0):
        self.send(frame(0x01, struct.pack("<HH", major, minor) + b'{"role": "server"}'))

    def load(self, handler="h.py", config=None, manifest=None, **rest):
        model = {"name": "m", "version": "1.0", "dir": self.directory, "handler": handler}
        model.update(manifest=manifest or {}, config=config or {})
        self.send(frame(0x02, json.dumps({"model": model, "worker": "W-9000-m_1.0", **rest}).encode()))

    def receive(self):
        """``(kind, flags, payload)`` of the next frame, or None at the end of the link."""
        head = self._take(8)
        if head is None:
            return None
        length, kind, flags, _ = struct.unpack("<IBBH", head)
        payload = self._take(length)
        assert payload is not None, "the link ended inside a frame"
        return kind, flags, payload

    def _take(self, size):
        while len(self.buffer) < size:
            try:
                more = self.socket.recv(1 << 20)
            except ConnectionResetError:
                more = b""
            if not more:
                assert not self.buffer, "the link ended inside a frame"
                return None
            self.buffer += more
        taken, self.buffer = self.buffer[:size], self.buffer[size:]
        return taken

    def expect(self, kind):
        """The payload of the next frame, which must be of this kind."""
        received = self.receive()
        assert received is not None, "the worker left, expected {:#x}; its output:\n{}".format(
            kind, self.log()
        )
        assert received[0] == kind, "expected {:#x}, got {:#x}: {!r}".format(
            kind, received[0], received[2][:300]
        )
        return received[2]

    def expect_loaded(self):
        self.expect(0x01)
        received = self.receive()
        assert received is not None and received[0] == 0x03, "not loaded; its output:\n{}".format(self.log())
        return json.loads(received[2])

    def expect_load_failed(self):
        self.expect(0x01)
        failed = json.loads(self.expect(0x04))
        assert self.wait() == 1
        return failed

    def reply(self):
        """The next Reply, whole."""
        reply = Reply(self.expect(0x12))
        if reply.flags & 4:
            while len(reply.body) < reply.size:
                payload = self.expect(0x11)
                identity, offset, number, _, _ = struct.unpack_from("<QQHHI", payload)
                assert (identity, offset, number) == (reply.item, len(reply.body), 0)
                reply.body += payload[24:]
                reply.frames += 1
        elif not reply.streams:
            assert len(reply.body) == reply.size
        return reply

    def replies(self, count):
        """So many Replies by item id."""
        found = {}
        for _ in range(count):
            reply = self.reply()
            assert reply.item not in found
            found[reply.item] = reply
        return found

    def predict(self, *parts, **rest):
        """Sends one item in a batch of its own and returns its Reply."""
        self.next_id = getattr(self, "next_id", 0) + 1
        self.send(batch(item(self.next_id, *parts, **rest)))
        return self.reply()

    def text(self, *parts, **rest):
        """The text that a handler answers to one item."""
        reply = self.predict(*parts, **rest)
        assert not reply.failed, "{}\n{}".format(reply.outcome, self.log())
        return reply.body.decode()

    def credit(self, identity, size):
        self.send(frame(0x15, struct.pack("<QII", identity, size, 0)))

    def chunks(self, identity, credit=True):
        """The chunks of one stream until its End, and the End's ``(status, failed, message)``."""
        chunks = []
        while True:
            kind, _, payload = self.receive()
            assert struct.unpack_from("<Q", payload)[0] == identity
            if kind == 0x14:
                _, _, status, flags, _ = struct.unpack_from("<QIHBB", payload)
                return chunks, (status, bool(flags & 1), payload[16:].decode())
            assert kind == 0x13
            chunks.append(payload[8:])
            if credit:
                self.credit(identity, len(payload) - 8)

    def drain(self):
        """Asks the worker to stop; checks Bye, the end of the link and the status."""
        self.send(frame(0x32))
        self.expect(0x33)
        assert self.receive() is None
        assert self.wait() == 0

    def wait(self):
        return self.process.wait(LIMIT)

    def log(self):
        self.output.seek(0)
        return self.output.read().decode()

    def wait_for_file(self, name):
        """Waits until the handler has made a file in the model directory."""
        path = os.path.join(self.directory, name)
        until = time.monotonic() + LIMIT
        while not os.path.exists(path):
            assert self.process.poll() is None, "the worker left; its output:\n" + self.log()
            assert time.monotonic() < until, "no file {} after {} s".format(name, LIMIT)
            time.sleep(0.002)
        return path
