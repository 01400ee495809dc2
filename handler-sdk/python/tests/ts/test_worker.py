"""`ts` handlers in real worker processes: what comes over the link, what is printed, what a worker weighs."""

import json
import os
import shutil
import struct
import sys

import pytest

from conftest import REPOSITORY, SDK

sys.path.append(os.path.join(SDK, "tests", "zoo_handler"))

from peer import Peer, batch, item, part

EXAMPLES = os.path.join(REPOSITORY, "examples")


@pytest.fixture
def worker(tmp_path):
    """Starts a worker for files, given as text or as the name of an example, in its model directory."""
    peers = []

    def start(files, ready=True, environment=None, **load):
        directory = tmp_path / "model{}".format(len(peers))
        if isinstance(files, str):
            shutil.copytree(os.path.join(EXAMPLES, files), str(directory))
        else:
            directory.mkdir()
            for name, text in files.items():
                path = directory / name
                path.parent.mkdir(exist_ok=True)
                path.write_text(text)
        peer = Peer(str(directory), environment)
        peers.append(peer)
        peer.socket.settimeout(120)  # importing torch for the first time takes long where many things run
        peer.hello()
        peer.load(**load)
        if ready:
            peer.expect_loaded()
        return peer

    yield start
    for peer in peers:
        peer.end()


def example(folder, name):
    with open(os.path.join(EXAMPLES, folder, name), "rb") as file:
        return file.read()


def metrics(payload):
    """`(name, unit, type, request ids, dimensions)` of each metric in a frame."""
    (count,) = struct.unpack_from("<H", payload)
    at, found = 2, []

    def text():
        nonlocal at
        (size,) = struct.unpack_from("<H", payload, at)
        at += 2 + size
        return payload[at - size : at].decode()

    for _ in range(count):
        name, unit = text(), text()
        kind, _value = struct.unpack_from("<Bd", payload, at)
        at += 9
        requests = text()
        (dimensions,) = struct.unpack_from("<H", payload, at)
        at += 2
        found.append((name, unit, kind, requests, [(text(), text()) for _ in range(dimensions)]))
    assert at == len(payload)
    return found


@pytest.mark.parametrize("content_type", ["application/json", ""], ids=["REST", "gRPC"])
def test_greedy_time(worker, content_type):
    pytest.importorskip("torchvision")
    manifest = {"model": {"modelName": "m", "modelFile": "model.py"}}
    peer = worker("greedy_time", handler="handler.py", manifest=manifest)
    row = part(example("greedy_time", "request.json"), content_type=content_type)
    peer.send(batch(item(1, row)))
    reported = metrics(peer.expect(0x20))
    assert ("HandlerTime", "Milliseconds", 1, "r1", [("ModelName", "m"), ("Level", "Model")]) in reported
    assert peer.reply().body == example("greedy_time", "expected.json")
    peer.drain()
    log = peer.log()
    assert "greedy_time is ready on cpu" in log
    assert "jobs: 2, mean need: 2.75" in log
    assert "[METRICS]" not in log


def test_pointer_net(worker):
    pytest.importorskip("torch")
    manifest = {"model": {"modelName": "m", "modelFile": "model.py", "modelVersion": "shanghai"}}
    peer = worker("pointer_net", handler="handler.py:handle", manifest=manifest, batch_size=2)
    row = part(example("pointer_net", "request.json"), content_type="application/json")
    peer.send(batch(item(1, row), item(2, row)))
    peer.expect(0x20)
    replies = peer.replies(2)
    assert [replies[each].body for each in (1, 2)] == [example("pointer_net", "expected.json")] * 2


def test_two_classes_in_the_model_file(worker):
    pytest.importorskip("torch")
    files = {
        "model.py": "import torch\nclass A(torch.nn.Module): pass\nclass B(torch.nn.Module): pass\n",
        "h.py": "from ts.torch_handler.base_handler import BaseHandler\nclass H(BaseHandler): pass\n",
    }
    manifest = {"model": {"modelName": "m", "modelFile": "model.py"}}
    failed = worker(files, ready=False, manifest=manifest).expect_load_failed()
    assert "Expected only one class as model definition. [<class 'model.A'>" in failed["message"]
    assert "_load_pickled_model" in failed["trace"]


HANDLER = """
from ts.handler_utils.utils import send_intermediate_predict_response
from ts.metrics.dimension import Dimension
from ts.metrics.metric_type_enum import MetricTypes
from ts.utils.util import PredictionException

class Handler:
    def initialize(self, context):
        self.made = context.metrics.add_metric_to_cache("made", "MB", ["who"], MetricTypes.HISTOGRAM)

    def handle(self, data, context):
        return [self.one(row, index, context) for index, row in enumerate(data)]

    def one(self, row, index, context):
        text = row["body"] if isinstance(row["body"], str) else row["body"].decode()
        if text == "teapot":
            return PredictionException("I am a teapot", 418)
        if text == "raise":
            raise PredictionException("all of you", 409)
        if text == "metric":
            self.made.add_or_update(3, ["me"], context.get_request_id(index))
            context.metrics.add_counter("lemons", 2, index, [Dimension("sort", "sour")])
        if text == "stream":
            for word in ("a", "b"):
                send_intermediate_predict_response([word], context.request_ids, "more", 200, context)
        return "c"
"""


def test_exceptions_and_their_codes(worker):
    peer = worker({"h.py": HANDLER}, batch_size=2)
    peer.send(batch(item(1, part(b"teapot")), item(2, part(b"x"))))
    replies = peer.replies(2)
    assert replies[1].outcome == (418, "I am a teapot")
    assert replies[2].outcome == (200, "c")
    peer.send(batch(item(3, part(b"raise")), item(4, part(b"x"))))
    assert {reply.outcome for reply in peer.replies(2).values()} == {(409, "all of you")}


def test_metrics_travel_as_frames(worker):
    peer = worker({"h.py": HANDLER})
    peer.send(batch(item(1, part(b"metric"))))
    assert metrics(peer.expect(0x20)) == [
        ("made", "Megabytes", 2, "r1", [("who", "me")]),
        ("lemons", "Count", 0, "r1", [("sort", "sour"), ("ModelName", "m"), ("Level", "Model")]),
    ]
    assert peer.reply().body == b"c"


def test_intermediate_answers(worker):
    peer = worker({"h.py": HANDLER})
    peer.send(batch(item(1, part(b"stream"))))
    head = peer.reply()
    assert head.streams
    chunks, end = peer.chunks(1)
    assert b"".join(chunks) == b"abc"
    assert end == (200, False, "")


def test_an_envelope_answers_each_request_of_a_batch(worker):
    source = "def handle(data, context):\n    return None if data is None else [row * 2 for row in data]\n"
    peer = worker({"h.py": source}, envelope="kserve", batch_size=3)
    bodies = [b'{"instances": [1, 2]}', b'{"rows": []}', b'{"instances": [3]}']
    peer.send(
        batch(*[item(n, part(each, content_type="application/json")) for n, each in enumerate(bodies, 1)])
    )
    replies = peer.replies(3)
    assert json.loads(replies[1].body) == {"predictions": [2, 4]}
    assert replies[2].outcome == (400, "the body must be a JSON object with a list `instances`")
    assert json.loads(replies[3].body) == {"predictions": [6]}


MICRO = """
import threading
from ts.handler_utils.micro_batching import MicroBatching

class Handler:
    def __init__(self):
        self.handle = MicroBatching(self, 2, {"inference": 2})

    def initialize(self, context):
        pass

    def handle(self, data, context):
        raise AssertionError("the instance has a handle of its own")

    def _is_describe(self):
        return False

    def _is_explain(self):
        return self.context.get_request_header(0, "explain") == "True"

    def preprocess(self, data):
        return [row["body"].decode() for row in data]

    def inference(self, data):
        assert threading.current_thread().name.startswith("micro-inference")
        return data

    def postprocess(self, data):
        return data
"""


def test_micro_batching(worker):
    peer = worker({"h.py": MICRO}, batch_size=5)
    peer.send(batch(*[item(number, part(b"%d" % number)) for number in range(1, 6)]))
    peer.expect(0x20)
    replies = peer.replies(5)
    assert [replies[number].body for number in range(1, 6)] == [b"%d" % number for number in range(1, 6)]
    peer.drain()


def test_the_sdk_wins_over_other_packages_of_its_names(worker):
    source = (
        "import ts, zoo_handler\n"
        "def handle(data, context):\n"
        "    return None if data is None else [ts.__file__ + ' ' + zoo_handler.__file__]\n"
    )
    trap = "raise RuntimeError('imported from the model directory')\n"
    peer = worker({"h.py": source, "ts/__init__.py": trap, "zoo_handler.py": trap})
    assert peer.text(part(b"")) == " ".join(
        os.path.join(SDK, package, "__init__.py") for package in ("ts", "zoo_handler")
    )


def test_a_handler_without_torch_is_small(worker):
    peer = worker({"h.py": HANDLER})
    peer.send(batch(item(1, part(b"metric"))))
    peer.expect(0x20)
    peer.reply()
    with open("/proc/{}/smaps_rollup".format(peer.process.pid)) as file:
        (line,) = [line for line in file if line.startswith("Rss:")]
    assert int(line.split()[1]) < 25_000, "kB resident"


VLLM = """
import asyncio
from types import SimpleNamespace as Made

class AsyncEngineArgs(dict):
    pass

class SamplingParams(dict):
    pass

class AsyncLLMEngine:
    @classmethod
    def from_engine_args(cls, arguments):
        return cls()

    async def generate(self, prompt, sampling, request_id, lora_request=None):
        words = prompt.split()
        for count in range(1, len(words) + 1):
            await asyncio.sleep(0)
            done = "stop" if count == len(words) else None
            choice = Made(index=0, text=" ".join(words[:count]), token_ids=words[:count], finish_reason=done)
            yield Made(outputs=[choice], prompt_token_ids=[1])
"""


def test_vllm_handler_with_a_stand_in_for_its_engine(worker):
    pytest.importorskip("torch")
    config = {"handler": {"model_path": "org/model"}, "asyncCommunication": True}
    peer = worker({"vllm.py": VLLM}, handler="vllm_handler", config=config, asynchronous=True, concurrency=8)
    peer.send(batch(item(1, part(b'{"prompt": "say it"}'), url_path="v1/completions")))
    peer.expect(0x20)
    answer = json.loads(peer.reply().body)
    assert (answer["model"], answer["choices"][0]["text"]) == ("m", "say it")
    peer.send(batch(item(2, part(b'{"prompt": "say it", "stream": true}'), url_path="v1/completions")))
    peer.expect(0x20)
    head = peer.reply()
    assert head.headers["content-type"] == "text/event-stream"
    chunks, end = peer.chunks(2)
    events = b"".join(chunks).decode().split("\n\n")
    assert [json.loads(event[6:])["choices"][0]["text"] for event in events[:2]] == ["say", " it"]
    assert events[2:] == ["data: [DONE]", ""]
    assert end == (200, False, "")


def test_a_model_without_its_engine_says_so(worker):
    pytest.importorskip("torch")
    config = {"handler": {"model_path": "org/model"}}
    peer = worker(
        {"vllm.py": "raise ImportError('no GPU here')\n"}, ready=False, handler="vllm_handler", config=config
    )
    failed = peer.expect_load_failed()
    assert failed["message"] == (
        "RuntimeError: model m: needs the Python package vllm, which can't be imported: no GPU here"
    )
