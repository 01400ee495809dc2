"""A running `zoo-server` and archives packed by `zoo-archiver`, as users start them."""

import http.client
import json
import os
import subprocess
import sys
import threading
import time
import uuid

LONG = 60  # seconds that only a broken build needs


class Reply:
    """What came back for one request."""

    def __init__(self, response):
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self.body = response.read()

    @property
    def text(self):
        return self.body.decode()

    def json(self):
        return json.loads(self.body)

    def __repr__(self):
        return "<{} {!r}>".format(self.status, self.body[:2000])


class Programs:
    """Where the programs under test are."""

    def __init__(self, server, archiver):
        self.server = server
        self.archiver = archiver


class Zoo:
    """A server with a model store of its own. `with` ends it."""

    def __init__(self, programs, home, *arguments, environment=None):
        self.programs = programs
        self.home = home
        self.store = home / "store"
        self.store.mkdir(parents=True)
        self.out, self.err = [], []
        self._news = threading.Condition()
        variables = dict(os.environ, **(environment or {}))
        # The runtime `python3` is the first one on the path.
        variables["PATH"] = os.path.dirname(sys.executable) + os.pathsep + variables["PATH"]
        command = [
            programs.server,
            "--inference-address",
            "127.0.0.1:0",
            "--management-address",
            "127.0.0.1:0",
            "--metrics-address",
            "127.0.0.1:0",
        ]
        command += ["--model-store", str(self.store), "--cache-dir", str(home / "cache")]
        command += ["--python", sys.executable, *arguments]
        self.process = subprocess.Popen(
            command, cwd=str(home), env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self._readers = [
            self._follow(self.process.stdout, self.out),
            self._follow(self.process.stderr, self.err),
        ]
        self.inference = self._address("Inference")
        self.management = self._address("Management")

    def __enter__(self):
        return self

    def __exit__(self, kind, _error, _trace):
        self.process.terminate()
        try:
            self.process.wait(LONG)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            if kind is None:
                raise
        finally:
            for reader in self._readers:
                reader.join(LONG)
            self.process.stdout.close()
            self.process.stderr.close()

    def _follow(self, stream, lines):
        def read():
            for line in stream:
                with self._news:
                    lines.append(line.decode("utf-8", "replace").rstrip("\n"))
                    self._news.notify_all()

        thread = threading.Thread(target=read, daemon=True)
        thread.start()
        return thread

    def _address(self, api):
        start = "{} API bind to: http://".format(api)
        line = self.said(lambda line: line.startswith(start), start, self.out)
        return line[len(start) :]

    def said(self, matches, what, lines=None):
        """Waits for a line of the log, and gives it."""

        def found():
            for line in lines if lines is not None else self.out + self.err:
                if matches(line):
                    return [line]
            return None

        with self._news:
            line = self._news.wait_for(found, LONG)
        assert line, "{} isn't in the log:\n{}".format(what, self.log())
        return line[0]

    def logged(self, *parts, out=False):
        """Waits for a line with all these parts, if `out` on standard output."""
        lines = self.out if out else None
        return self.said(lambda line: all(part in line for part in parts), parts, lines)

    def log(self, last=100):
        """The end of what was written."""
        with self._news:
            return "\n".join(self.out[-last:] + self.err[-last:])

    # Archives.

    def pack(self, name, files, *options, handler="handler.py", version="1.0"):
        """Packs files, given by name and content, into `NAME.mar` in the model store."""
        source = self.home / "sources" / uuid.uuid4().hex
        source.mkdir(parents=True)
        for file, content in files.items():
            path = source / file
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        self.archive(source, name, "--version", version, "--handler", handler, *options)

    def archive(self, source, name, *options):
        """Runs the archiver in a folder."""
        command = [self.programs.archiver, "--model-name", name, "--export-path", str(self.store), *options]
        packed = subprocess.run(command, cwd=str(source), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert packed.returncode == 0, packed.stdout.decode()

    # The APIs.

    def call(self, address, method, path, body=None, headers=None):
        """One request on a connection of its own."""
        connection = http.client.HTTPConnection(address, timeout=LONG)
        try:
            connection.request(method, path, body, headers or {})
            return Reply(connection.getresponse())
        finally:
            connection.close()

    def manage(self, method, path):
        return self.call(self.management, method, path)

    def register(self, url, **parameters):
        """Registers an archive with one worker, which must start."""
        query = "&".join("{}={}".format(*pair) for pair in dict({"initial_workers": 1}, **parameters).items())
        reply = self.manage("POST", "/models?url={}&{}".format(url, query))
        assert reply.status == 200, "{}\n{}".format(reply, self.log())
        return reply

    def serve(self, name, files, *options, **packing):
        """Packs and registers."""
        self.pack(name, files, *options, **packing)
        return self.register(name + ".mar")

    def drop(self, name):
        reply = self.manage("DELETE", "/models/" + name)
        assert reply.status == 200, reply

    def describe(self, name):
        reply = self.manage("GET", "/models/" + name)
        assert reply.status == 200, reply
        return reply.json()[0]

    def worker(self, name):
        """The only worker of a model, described."""
        (worker,) = self.describe(name)["workers"]
        return worker

    def predict(self, model, body=b"", content_type=None, kind="predictions", method="POST"):
        headers = {"Content-Type": content_type} if content_type else {}
        return self.call(self.inference, method, "/{}/{}".format(kind, model), body, headers)

    def predict_json(self, model, value, kind="predictions"):
        return self.predict(model, json.dumps(value).encode(), "application/json", kind)


def eventually(condition, what):
    """Waits until a condition holds, and gives what it returned."""
    end = time.monotonic() + LONG
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, "still not: " + what
        time.sleep(0.02)


def exists(pid):
    """Whether a process runs."""
    try:
        with open("/proc/{}/stat".format(pid)) as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
