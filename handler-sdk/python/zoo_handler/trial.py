"""Tries a handler without a server: the real worker in this process, a thread that plays the server.

The handler runs in the main thread with the terminal as its input, so a debugger works.
"""

import json
import os
import shutil
import socket
import sys
import tarfile
import tempfile
import threading
import zipfile

from zoo_handler import wire
from zoo_handler.errors import InvalidArchive

_MANIFEST = os.path.join("MAR-INF", "MANIFEST.json")


class Trial:
    """One archive or folder, and what its Load frame says.

    ``files``: what its manifest doesn't say of the model, or says otherwise.
    """

    def __init__(self, path, handler=None, config=None, batch_size=1, gpu=None, files=None):
        self._temporary = None
        if os.path.isdir(path):
            self.directory = os.path.abspath(path)
        else:
            self._temporary = self.directory = tempfile.mkdtemp(prefix="zoo-trial-")
            _unpack(path, self.directory)
        manifest = self._manifest()
        model = manifest.setdefault("model", {})
        model.update((key, name) for key, name in (files or {}).items() if name)
        name = model.get("modelName") or os.path.splitext(os.path.basename(os.path.abspath(path)))[0]
        self.load = {
            "model": {
                "name": name,
                "version": model.get("modelVersion") or "1.0",
                "dir": self.directory,
                "handler": handler or model.get("handler"),
                "manifest": manifest,
                "config": self._config(config, model.get("configFile")),
            },
            "worker": "W-0-{}".format(name),
            "batch_size": batch_size,
            "gpu": gpu,
            "envelope": model.get("envelope"),
            "concurrency": batch_size,
        }

    def _manifest(self):
        path = os.path.join(self.directory, _MANIFEST)
        if not os.path.isfile(path):
            return {}
        with open(path, encoding="utf-8") as file:
            return json.load(file)

    def _config(self, given, packed):
        path = given or (packed and os.path.join(self.directory, packed))
        if not path:
            return {}
        with open(path, encoding="utf-8") as file:
            text = file.read()
        try:
            return json.loads(text)
        except ValueError:
            pass
        try:
            import yaml
        except ImportError:
            raise InvalidArchive(
                "reading {} needs pyyaml (the server hands it over as JSON): pip install pyyaml".format(path)
            ) from None
        return yaml.safe_load(text) or {}

    def run(self, requests):
        """Sends these ``Sample`` requests as one batch.

        Returns the answers, in order, after the worker has stopped.
        """
        from zoo_handler.worker import Worker

        ours, theirs = socket.socketpair()
        server = _Server(ours, self.load, requests)
        before = os.getcwd()
        os.chdir(self.directory)
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        try:
            Worker(theirs).run()
        finally:
            os.chdir(before)
            theirs.close()
            thread.join()
        if server.failed:
            raise InvalidArchive(server.failed["message"])
        return server.answers

    def close(self):
        """Removes what was unpacked."""
        if self._temporary:
            shutil.rmtree(self._temporary, ignore_errors=True)


class Sample:
    """A request to try."""

    def __init__(self, body, content_type="", name="body", headers=(), url_path="", explain=False):
        self.body = body
        self.content_type = content_type
        self.name = name
        self.headers = dict(headers)
        if content_type:
            self.headers.setdefault("content-type", content_type)
        self.url_path = url_path
        self.explain = explain

    def encode(self, identity):
        """The item, and the Body frames of what it declares."""
        head = wire.encode_headers(self.headers)
        name, kind, path = self.name.encode(), self.content_type.encode(), self.url_path.encode()
        request_id = "trial-{}".format(identity).encode()
        item = wire.ITEM_HEAD.pack(
            identity, 0, len(head), len(request_id), len(path), 1, int(self.explain), 0
        )
        part = wire.PART_HEAD.pack(len(self.body), len(name), len(kind), wire.PART_BODIES, 0, 0)
        bodies = []
        for offset in range(0, len(self.body), wire.MAX_BODY_PIECE):
            piece = self.body[offset : offset + wire.MAX_BODY_PIECE]
            bodies.append(
                wire.encode_frame(wire.BODY, wire.BODY_HEAD.pack(identity, offset, 0, 0, 0) + piece)
            )
        return item + request_id + path + head + part + name + kind, bodies


class TrialAnswer:
    """What came back for one request."""

    def __init__(self):
        self.status = 0
        self.failed = False
        self.streamed = False
        self.headers = {}
        self.body = bytearray()
        self.milliseconds = 0.0


class _Server:
    """The server's end, for one batch."""

    def __init__(self, end, load, requests):
        self._end = end
        self._load = load
        self._requests = requests
        self._open = set(range(1, len(requests) + 1))
        self._sizes = {}
        self.answers = [TrialAnswer() for _ in requests]
        self.failed = None

    def run(self):
        try:
            self._send(wire.encode_hello("{}"), wire.encode_frame(wire.LOAD, json.dumps(self._load).encode()))
            while self._step():
                pass
        except (OSError, EOFError):
            pass  # the worker has left: the answers say how far it came
        finally:
            self._end.close()

    def _send(self, *frames):
        self._end.sendall(b"".join(frames))

    def _take(self, size):
        taken = bytearray(size)
        view = memoryview(taken)
        while len(view):
            got = self._end.recv_into(view)
            if not got:
                raise EOFError
            view = view[got:]
        return bytes(taken)

    def _step(self):
        """One frame from the worker. False after the last."""
        length, kind, _, _ = wire.FRAME.unpack(self._take(8))
        payload = self._take(length)
        if kind == wire.LOADED:
            self._send_batch()
        elif kind == wire.LOAD_FAILED:
            self.failed = json.loads(payload)
        elif kind == wire.REPLY:
            self._reply(payload)
        elif kind == wire.BODY:
            item = wire.BODY_HEAD.unpack_from(payload)[0]
            self.answers[item - 1].body += payload[wire.BODY_HEAD.size :]
            self._finish_if_full(item)
        elif kind == wire.CHUNK:
            item = wire.ID.unpack_from(payload)[0]
            self.answers[item - 1].body += payload[8:]
            self._send(wire.encode_frame(wire.CREDIT, wire.CREDIT_HEAD.pack(item, len(payload) - 8, 0)))
        elif kind == wire.END:
            item, spent, status, flags, _ = wire.END_HEAD.unpack_from(payload)
            answer = self.answers[item - 1]
            answer.milliseconds = spent / 1000
            if flags & wire.END_FAILED:
                answer.failed, answer.status = True, status
                answer.body += payload[wire.END_HEAD.size :]
            self._finish(item)
        return kind != wire.BYE and kind != wire.LOAD_FAILED

    def _send_batch(self):
        items, bodies = [], []
        for number, request in enumerate(self._requests, 1):
            item, pieces = request.encode(number)
            items.append(item)
            bodies += pieces
        head = wire.BATCH_HEAD.pack(len(items), 0)
        self._send(wire.encode_frame(wire.BATCH, head + b"".join(items)), *bodies)

    def _reply(self, payload):
        item, size, header_size, spent, status, flags, _, _ = wire.REPLY_HEAD.unpack_from(payload)
        answer = self.answers[item - 1]
        answer.status = status
        answer.failed = bool(flags & wire.REPLY_FAILED)
        answer.streamed = bool(flags & wire.REPLY_STREAM)
        answer.milliseconds = spent / 1000
        end = wire.REPLY_HEAD.size + header_size
        answer.headers = dict(_headers(payload[wire.REPLY_HEAD.size : end]))
        answer.body += payload[end:]
        if not answer.streamed:
            self._sizes[item] = size
            self._finish_if_full(item)

    def _finish_if_full(self, item):
        if len(self.answers[item - 1].body) >= self._sizes[item]:
            self._finish(item)

    def _finish(self, item):
        self._open.discard(item)
        if not self._open:
            self._send(wire.encode_frame(wire.DRAIN, b""))


def _headers(block):
    at = 0
    while at < len(block):
        stop = at + 2 + wire.SHORT.unpack_from(block, at)[0]
        name = block[at + 2 : stop].decode()
        at = stop + 4 + wire.LONG.unpack_from(block, stop)[0]
        yield name, block[stop + 4 : at].decode()


def _unpack(path, directory):
    """Unpacks an archive of the user's own. The server's reading is stricter."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            archive.extractall(directory)
    elif tarfile.is_tarfile(path):
        with tarfile.open(path) as archive:
            if sys.version_info >= (3, 12):
                archive.extractall(directory, filter="data")
            else:
                for member in archive.getmembers():
                    target = os.path.realpath(os.path.join(directory, member.name))
                    if not target.startswith(os.path.realpath(directory) + os.sep) or not member.isfile():
                        continue
                    archive.extract(member, directory)
        _lift(directory)
    else:
        raise InvalidArchive("{} is neither a folder nor a .mar nor a .tar.gz".format(path))


def _lift(directory):
    """A .tar.gz holds one folder with the model in it."""
    inside = os.listdir(directory)
    if len(inside) == 1 and os.path.isdir(os.path.join(directory, inside[0], "MAR-INF")):
        folder = os.path.join(directory, inside[0])
        for name in os.listdir(folder):
            shutil.move(os.path.join(folder, name), directory)
        os.rmdir(folder)
