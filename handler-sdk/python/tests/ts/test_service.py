"""`ts.service`, `ts.model_loader` and the worker of TorchServe's protocol, over a real socket."""

import json
import os
import socket
import struct
import subprocess
import sys
import threading

import pytest
from frames import END, Reader, load_frame, parse_predict_response, predict_frame

from conftest import SDK

FUNCTION = """
def handle(data, context):
    if data is None:
        return None
    {}
"""


@pytest.fixture
def served(archive, load):
    def make(body, **kwargs):
        return load(archive({"h.py": FUNCTION.format(body)}), "h.py", **kwargs)

    return make


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        ("return 'text'", 503, "Invalid model predict output"),
        ("return None", 503, "Invalid model predict output"),
        ("return {'a': 1}", 503, "Invalid model predict output"),
        ("return [1]", 503, "number of batch response mismatched"),
        ("return [1, 2, 3]", 503, "number of batch response mismatched"),
        ("raise MemoryError", 507, "Out of resources"),
        ("raise RuntimeError('CUDA error')", 507, "Out of resources"),
        ("raise KeyError('x')", 503, "Prediction failed"),
        ("from ts.utils.util import PredictionException as E; raise E('too bad', 418)", 418, "too bad"),
    ],
)
def test_failures(served, body, code, message):
    found, text, answers = served(body).predict({"body": 1}, {"body": 2})
    assert (found, text) == (code, message)
    assert [answer.body for answer in answers] == [b"error", b"error"]


@pytest.mark.parametrize(
    ("value", "body"),
    [
        ("b'\\xff'", b"\xff"),
        ("bytearray(b'a')", b"a"),
        ("'é'", "é".encode()),
        ("[1, 0]", b"[\n  1,\n  0\n]"),
        ("{'a': None}", b'{\n  "a": null\n}'),
        ("1.5", b"1.5"),
    ],
)
def test_values(served, value, body):
    _, _, (answer,) = served("return [{}]".format(value)).predict({"body": 1})
    assert answer.body == body
    assert (answer.status, answer.content_type, answer.headers) == (200, "", {})


def test_context_reaches_headers_and_status(served):
    body = (
        "context.set_response_content_type(1, 'text/x'); context.set_response_header(0, 'a', 'b'); "
        "context.set_response_status(201, 'Made', 1); "
        "return [context.get_request_id(0), context.get_request_header(1, 'Who')]"
    )
    _, _, answers = served(body).predict({"body": 1}, {"body": 2}, headers={"Who": "me"})
    assert [answer.body for answer in answers] == [b"r0", b"me"]
    assert answers[0].headers == {"a": "b"}
    assert (answers[1].status, answers[1].phrase, answers[1].content_type) == (201, "Made", "text/x")


def test_prediction_time_is_reported(served):
    model = served("return [1]")
    model.predict({"body": 1})
    (record,) = model.context.metrics.take()
    assert (record[0], record[1], record[4]) == ("PredictionTime", "Milliseconds", "r0")
    assert record[5] == [("ModelName", "m"), ("Level", "Model")]


def test_function_of_another_name(archive, load):
    source = "def entry_point(data, context):\n    return data and ['yes']\n"
    assert load(archive({"h.py": source}), "h.py:entry_point").predict({"body": 1})[2][0].body == b"yes"


def test_old_base_classes(archive, load):
    source = (
        "from ts.model_service.model_service import SingleNodeService\n"
        "class Old(SingleNodeService):\n"
        "    def __init__(self):\n        super().__init__('m', '/', {})\n"
        "    def _inference(self, data):\n        return [self.signature['n'] + len(data)]\n"
    )
    model = load(archive({"h.py": source, "signature.json": '{"n": 4}'}), "h.py")
    assert model.ask({"body": 1}) == [5]
    assert model.ask({"body": 1}) == [5]


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        (
            "class A:\n    def handle(self): pass\nclass B: pass\n",
            "Expected only one class in custom service code",
        ),
        ("class A: pass\n", "Expect handle method in class"),
        ("x = 1\n", "Expected only one class in custom service code"),
        ("import missing_dependency\n", "No module named 'missing_dependency'"),
        ("def handle(data, context):\n    raise OSError('no disk')\n", "no disk"),
    ],
)
def test_handlers_that_cannot_be_loaded(archive, load, source, problem):
    with pytest.raises(Exception, match=problem):
        load(archive({"h.py": source}), "h.py")


def test_no_such_handler(archive, load):
    with pytest.raises(Exception, match="neither a file of the archive nor a built-in handler"):
        load(archive(), "no_such_handler")


def test_missing_batch():
    from ts.service import Service

    with pytest.raises(ValueError, match="Received invalid inputs"):
        Service.retrieve_data_for_inference(None)


# The worker.


class Connection:
    """The frontend's end of a worker's connection."""

    def __init__(self, end):
        self.end = end
        self.end.settimeout(30)
        self.file = end.makefile("rb")

    def send(self, frame):
        self.end.sendall(frame)

    def receive(self):
        """One frame of answers, as bytes."""
        data = self.file.read(4)
        data += self._field()
        while True:
            length = self.file.read(4)
            data += length
            if length == END:
                return data
            data += self.file.read(struct.unpack("!i", length)[0])
            data += self._field()
            data += self.file.read(4)
            data += self._field()
            count = self.file.read(4)
            data += count
            for _ in range(2 * struct.unpack("!i", count)[0]):
                data += self._field()
            data += self._field()

    def _field(self):
        length = self.file.read(4)
        return length + self.file.read(struct.unpack("!i", length)[0])


@pytest.fixture
def connection(tmp_path, monkeypatch):
    from ts.model_service_worker import TorchModelServiceWorker

    ends, threads = [], []

    def connect(async_comm=False):
        ours, theirs = socket.socketpair()
        worker = TorchModelServiceWorker("unix", str(tmp_path / "s.9000"), async_comm=async_comm)
        worker.sock.close()
        thread = threading.Thread(target=worker.handle_connection, args=(theirs,))
        thread.start()
        ends.extend([ours, theirs])
        threads.append(thread)
        return Connection(ours)

    path, modules = list(sys.path), set(sys.modules)
    yield connect
    for end in ends:
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    for end in ends:
        end.close()
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if name in ("h", "zoo_model_h"):
            del sys.modules[name]


ECHO = (
    "import json\nfrom ts.handler_utils.utils import send_intermediate_predict_response\n"
    "def handle(data, context):\n"
    "    if data is None:\n        return None\n"
    "    if data[0].get('stream'):\n"
    "        for word in ('a', 'b'):\n"
    "            send_intermediate_predict_response([word], context.request_ids, 'more', 200, context)\n"
    "        return ['c']\n"
    "    return [json.dumps([row['x'] if isinstance(row['x'], (str, list)) else type(row['x']).__name__,"
    " context.get_request_header(i, 'h')]) for i, row in enumerate(data)]\n"
)


def loaded(connection, directory, **kwargs):
    connection.send(load_frame("m", str(directory), "h.py", **kwargs))
    reader = Reader(connection.receive())
    return reader.int(), reader.field().decode()


def test_worker_loads_and_predicts(archive, connection):
    frontend = connection()
    assert loaded(frontend, archive({"h.py": ECHO}), batch_size=3) == (200, "loaded model m")
    parameters = [
        ("x", "application/json", b"[1]"),
        ("x", "application/json", b"[1"),
        ("x", "text/plain", "é".encode()),
        ("x", "image/png", b"\x89"),
    ]
    requests = [("r{}".format(i), {"h": str(i)}, [parameter]) for i, parameter in enumerate(parameters)]
    frontend.send(predict_frame(*requests))
    code, message, answers = parse_predict_response(frontend.receive())
    assert (code, message) == (200, "Prediction success")
    assert [answer.request_id for answer in answers] == ["r0", "r1", "r2", "r3"]
    found = [json.loads(answer.body) for answer in answers]
    assert found == [[[1], "0"], ["bytearray", "1"], ["é", "2"], ["bytearray", "3"]]


def test_worker_leaves_bytes_alone_if_told_so(archive, connection, monkeypatch):
    monkeypatch.setenv("TS_DECODE_INPUT_REQUEST", "false")
    frontend = connection()
    loaded(frontend, archive({"h.py": ECHO}))
    frontend.send(predict_frame(("r", {"h": "1"}, [("x", "application/json", b"[1]")])))
    assert json.loads(parse_predict_response(frontend.receive())[2][0].body) == ["bytearray", "1"]


def test_worker_streams(archive, connection):
    frontend = connection()
    loaded(frontend, archive({"h.py": ECHO}))
    frontend.send(predict_frame(("r", {}, [("stream", "", b"1")])))
    chunks = [parse_predict_response(frontend.receive())[2][0] for _ in range(3)]
    assert [chunk.body for chunk in chunks] == [b"a", b"b", b"c"]
    assert [chunk.headers["ts_stream_next"] for chunk in chunks] == ["true", "true", "false"]


@pytest.mark.parametrize(
    ("failure", "answer"),
    [
        ("RuntimeError('why')", (500, "Unknown exception")),
        ("RuntimeError('CUDA')", (507, "System out of memory")),
        ("MemoryError()", (507, "System out of memory")),
    ],
)
def test_worker_says_that_a_load_failed(archive, connection, failure, answer):
    source = "def handle(data, context):\n    raise {}\n".format(failure)
    assert loaded(connection(), archive({"h.py": source})) == answer


def test_worker_with_coroutines(archive, connection):
    source = (
        "import asyncio\n"
        "class H:\n"
        "    def initialize(self, context):\n        self.go = None\n"
        "    async def handle(self, data, context):\n"
        "        self.go = self.go or asyncio.Event()\n"
        "        if context.get_request_id(0) == 'waits':\n            await self.go.wait()\n"
        "        self.go.set()\n"
        "        return [context.get_request_id(0)]\n"
    )
    frontend = connection(async_comm=True)
    assert loaded(frontend, archive({"h.py": source}))[0] == 200
    for name in ("waits", "overtakes"):
        frontend.send(predict_frame((name, {}, [])))
    answers = [parse_predict_response(frontend.receive())[2][0] for _ in range(2)]
    assert [(answer.request_id, answer.body) for answer in answers] == [
        ("overtakes", b"overtakes"),
        ("waits", b"waits"),
    ]


def test_worker_with_a_stream_of_a_coroutine(archive, connection):
    source = (
        "class H:\n"
        "    def initialize(self, context):\n        pass\n"
        "    async def handle(self, data, context):\n        return [self.words()]\n"
        "    async def words(self):\n"
        "        for word in ('a', 'b', 'c'):\n            yield word\n"
    )
    frontend = connection(async_comm=True)
    loaded(frontend, archive({"h.py": source}))
    frontend.send(predict_frame(("r", {}, [])))
    chunks = [parse_predict_response(frontend.receive())[2][0] for _ in range(3)]
    assert [chunk.body for chunk in chunks] == [b"a", b"b", b"c"]
    assert [chunk.headers["ts_stream_next"] for chunk in chunks] == ["true", "true", "false"]


def test_worker_process(archive, tmp_path):
    name = str(tmp_path / "s.9000")
    command = [sys.executable, "-m", "ts.model_service_worker", "--sock-type", "unix", "--sock-name", name]
    directory = archive({"h.py": ECHO})
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join([SDK, os.environ.get("PYTHONPATH", "")]))
    process = subprocess.Popen(command, cwd=directory, env=environment, stdout=subprocess.PIPE, text=True)
    lines = []
    for line in process.stdout:
        lines.append(line.strip())
        if line.startswith("Python runtime"):
            break
    assert lines[:3] == ["Listening on port: " + name, "[PID]{}".format(process.pid), "Torch worker started."]
    with socket.socket(socket.AF_UNIX) as end:
        end.connect(name)
        frontend = Connection(end)
        assert loaded(frontend, directory) == (200, "loaded model m")
        frontend.file.close()
    assert process.wait(30) == 0
    process.stdout.close()
    assert not os.path.exists(name)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [(("unix", None), "No socket name"), (("tcp", None), "No socket port"), ((None,), "must be unix or tcp")],
)
def test_worker_arguments(arguments, problem):
    from ts.model_service_worker import TorchModelServiceWorker

    with pytest.raises(ValueError, match=problem):
        TorchModelServiceWorker(*arguments)


def test_worker_of_a_rank(tmp_path, monkeypatch):
    from ts.model_service_worker import TorchModelServiceWorker

    monkeypatch.setenv("LOCAL_RANK", "2")
    worker = TorchModelServiceWorker("unix", str(tmp_path / ".ts.sock.9000"))
    worker.sock.close()
    assert worker.sock_name == str(tmp_path / ".ts.sock.9002")


def test_unknown_commands_and_cut_frames():
    from ts.protocol.otf_message_handler import retrieve_msg

    for sent, error in ((b"X", ValueError), (b"I\x00\x00", OSError), (b"", OSError)):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.sendall(sent)
            ours.shutdown(socket.SHUT_WR)
            with pytest.raises(error):
                retrieve_msg(theirs)


def test_stopping_criteria_drive_streams(served):
    model = served("return ['x', 'y']")
    model.context.stopping_criteria = [lambda result: result == "x", lambda result: None]
    _, _, answers = model.predict({"body": 1}, {"body": 1})
    assert [answer.headers["ts_stream_next"] for answer in answers] == ["false", "true"]


def test_deprecated_way_of_streaming_warns():
    from ts.protocol.otf_message_handler import send_intermediate_predict_response

    with pytest.warns(DeprecationWarning), pytest.raises(RuntimeError, match="needs the context"):
        send_intermediate_predict_response(["a"], {0: "r"}, "m", 200, None)


def test_command_lines():
    from ts.arg_parser import ArgParser

    line = "--model-store s --models a b=c --ncs --dt --enable-model-api --foreground"
    args = ArgParser.extract_args(line.split())
    assert (args.model_store, args.models, args.no_config_snapshots) == ("s", ["a", "b=c"], True)
    assert (args.disable_token_auth, args.enable_model_api, args.foreground) == (True, True, True)
    args = ArgParser.model_service_worker_args().parse_args("--sock-type tcp --port 9000 --async".split())
    assert (args.sock_type, args.port, args.async_comm) == ("tcp", "9000", True)
