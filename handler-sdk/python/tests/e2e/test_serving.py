"""Envelopes, batches, streams and memory: what lies between the API and a handler that doesn't need torch."""

import http.client
import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from zoo import LONG, Zoo

TWICE = """
def handle(data, context):
    if data is None:
        return None
    values = [row["data"] if isinstance(row, dict) else row for row in data]
    return [twice(value) for value in values]


def twice(value):
    return [item * 2 for item in value] if isinstance(value, list) else value * 2
"""
TENSOR = {"name": "x", "shape": [3], "datatype": "INT64", "data": [1, 2, 3]}
OUTPUT = {"name": "x", "datatype": "INT64", "data": [2, 4, 6], "shape": [3]}


@pytest.mark.parametrize(
    "envelope, asked, predicted, explained",
    [
        ("body", "ab", "abab", "abab"),
        ("json", {"instances": [1, 2]}, {"predictions": [2, 4]}, {"predictions": [2, 4]}),
        ("kserve", {"instances": [1, 2]}, {"predictions": [2, 4]}, {"explanations": [2, 4]}),
        (
            "kservev2",
            {"id": "mine", "inputs": [TENSOR]},
            {"id": "mine", "model_name": "m", "model_version": "1.0", "outputs": [OUTPUT]},
            None,
        ),
    ],
)
def test_envelope(programs, tmp_path, envelope, asked, predicted, explained):
    with Zoo(programs, tmp_path / "zoo", "--service-envelope", envelope) as zoo:
        zoo.serve("m", {"handler.py": TWICE}, handler="handler.py:handle")
        for kind, expected in [("predictions", predicted), ("explanations", explained)]:
            reply = zoo.predict_json("m", asked, kind)
            assert reply.status == 200, zoo.log()
            answer = reply.text if envelope == "body" else reply.json()
            assert expected is None or answer == expected
        if envelope != "body":
            reply = zoo.predict_json("m", {"rows": []})
            assert reply.status == 400, zoo.log()
            assert ("inputs" if envelope == "kservev2" else "instances") in reply.json()["message"]


BATCHED = """
from ts.handler_utils.micro_batching import MicroBatching


class Handler:
    def initialize(self, context):
        self.handle = MicroBatching(self, 3)
        self.handle.parallelism = {"preprocess": 2, "inference": 2, "postprocess": 2}

    def handle(self, data, context):
        raise AssertionError("initialize has put another one in its place")

    def _is_describe(self):
        return False

    def _is_explain(self):
        return self.context.get_request_header(0, "explain") == "True"

    def explain_handle(self, prepared, data):
        return ["explained {} of {}".format(text, len(data)) for text in prepared]

    def preprocess(self, data):
        return [row["body"].decode() for row in data]

    def inference(self, texts):
        return [(text, len(texts)) for text in texts]

    def postprocess(self, rows):
        return ["{} of {}".format(*row) for row in rows]
"""
# A batch is only handed out when it is full: the order of answers is that of requests, or the test waits in vain.
FULL = "batchSize: 8\nmaxBatchDelay: 100000\n"


def test_micro_batching_keeps_the_order_and_explanations_apart(zoo):
    files = {"handler.py": BATCHED, "model-config.yaml": FULL}
    zoo.serve("micro", files, "--config-file", "model-config.yaml")
    kinds = ["predictions", "explanations"] * 4
    with ThreadPoolExecutor(8) as clients:

        def ask(number):
            return zoo.predict("micro", b"%d" % number, kind=kinds[number]).text

        answers = list(clients.map(ask, range(8)))
        assert answers[1::2] == ["explained {} of 4".format(number) for number in range(1, 8, 2)]
        # Four predictions, cut by three.
        assert sorted(answer.split()[0] for answer in answers[::2]) == ["0", "2", "4", "6"]
        assert [answer.split()[0] for answer in answers[::2]] == ["0", "2", "4", "6"]
        assert sorted(answer[2:] for answer in answers[::2]) == ["of 1", "of 3", "of 3", "of 3"]
        kinds = ["predictions"] * 8
        answers = list(clients.map(ask, range(8)))
    assert [answer.split()[0] for answer in answers] == [str(number) for number in range(8)]
    assert sorted(answer[2:] for answer in answers) == ["of 2"] * 2 + ["of 3"] * 6
    zoo.drop("micro")


STREAM = """
import os
import time

from ts.handler_utils.utils import send_intermediate_predict_response


def handle(data, context):
    if data is None:
        return None
    context.set_response_content_type(0, "text/event-stream")
    # Each next piece is made when the client says that it has the one before.
    for number in range(3):
        send_intermediate_predict_response(["piece {};".format(number)], context.request_ids, "", 200, context)
        while not os.path.exists(data[0]["body"].decode() + str(number)):
            time.sleep(0.002)
    return ["end"]
"""
YIELD = """
from zoo_handler import Handler, Response


class Words(Handler):
    def predict_one(self, request):
        return Response((word + " " for word in request.text.split()), content_type="text/plain")
"""


def test_a_stream_arrives_piece_by_piece(zoo, tmp_path):
    zoo.serve("stream", {"handler.py": STREAM}, handler="handler.py:handle")
    connection = http.client.HTTPConnection(zoo.inference, timeout=LONG)
    connection.request("POST", "/predictions/stream", str(tmp_path / "got").encode())
    response = connection.getresponse()
    assert (response.status, response.getheader("content-type")) == (200, "text/event-stream")
    assert response.getheader("transfer-encoding") == "chunked"
    for number in range(3):
        assert response.read1() == "piece {};".format(number).encode()
        (tmp_path / "got{}".format(number)).touch()
    assert response.read() == b"end"
    connection.close()
    zoo.drop("stream")


def test_a_stream_of_our_own_api(zoo):
    zoo.serve("words", {"handler.py": YIELD})
    reply = zoo.predict("words", b"one two three")
    assert (reply.status, reply.headers["content-type"], reply.text) == (200, "text/plain", "one two three ")
    zoo.drop("words")


LIGHT = """
import json
import logging

from ts.context import Context
from ts.utils.util import PredictionException

logger = logging.getLogger(__name__)


class Light:
    def initialize(self, context):
        assert isinstance(context, Context)

    def handle(self, data, context):
        logger.info("a batch of %d", len(data))
        context.metrics.add_counter("lemons", len(data))
        context.set_response_header(0, "X-Sort", "sour")
        return [{"seen": json.loads(row["body"])} for row in data]
"""


def test_a_handler_without_torch_is_small(zoo):
    zoo.serve("light", {"handler.py": LIGHT})
    for number in range(20):
        reply = zoo.predict("light", json.dumps(number).encode())
        assert (reply.json(), reply.headers["x-sort"]) == ({"seen": number}, "sour")
    zoo.logged("a batch of 1", out=True)
    assert 1_000_000 < zoo.worker("light")["memoryUsage"] < 25_000_000
    zoo.drop("light")


def test_the_compiled_sdk_is_kept_and_used(programs, tmp_path):
    """Python writes a compiled file anew if it can't use the one that is there."""
    with Zoo(programs, tmp_path / "zoo", environment={"PYTHONDONTWRITEBYTECODE": ""}) as zoo:
        zoo.serve("light", {"handler.py": LIGHT})
        first = compiled(zoo)
        assert {"worker", "wire", "link", "loader", "context"} <= {name for name, _, _ in first}
        zoo.register("light.mar", model_name="second")
        assert compiled(zoo) == first


def compiled(zoo):
    """Name, inode and time of what Python compiled in the unpacked SDK."""
    files = (zoo.home / "cache" / "sdk").glob("*/zoo_handler/__pycache__/*.pyc")
    return {(file.name.partition(".")[0], file.stat().st_ino, file.stat().st_mtime_ns) for file in files}
