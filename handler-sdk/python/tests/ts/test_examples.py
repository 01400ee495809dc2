"""The example handlers, as TorchServe's users write them, answer what their folders say."""

import json
import logging
import os

import pytest

from conftest import REPOSITORY

pytest.importorskip("torchvision")

EXAMPLES = os.path.join(REPOSITORY, "examples")


def read(example, name):
    with open(os.path.join(EXAMPLES, example, name), "rb") as file:
        return file.read()


def unpacked(archive, example, names, **model):
    return archive({name: read(example, name) for name in names.split()}, **model)


@pytest.fixture
def greedy_time(archive, load):
    directory = unpacked(
        archive, "greedy_time", "model.py handler.py", modelFile="model.py", modelVersion="1.0"
    )
    return load(directory, "handler.py")


@pytest.mark.parametrize("wrap", [json.loads, bytearray], ids=["REST", "gRPC"])
@pytest.mark.parametrize("name", ["body", "data"])
def test_greedy_time(greedy_time, caplog, wrap, name):
    caplog.set_level(logging.INFO)
    code, message, (answer,) = greedy_time.predict({name: wrap(read("greedy_time", "request.json"))})
    assert (code, message) == (200, "Prediction success")
    assert answer.body == read("greedy_time", "expected.json") == b"[\n  1,\n  0\n]"
    assert "jobs: 2, mean need: 2.75" in caplog.text
    names = [record[0] for record in greedy_time.context.metrics.take()]
    assert names == ["HandlerTime", "PredictionTime"]


def test_greedy_time_cannot_explain_and_says_why(greedy_time, caplog):
    code, _, _ = greedy_time.predict(
        {"body": json.loads(read("greedy_time", "request.json"))}, headers={"explain": "True"}
    )
    assert code == 503
    assert "GreedyTimeHandler can't explain: it has no get_insights" in caplog.text


POINTER_NET = "model.py handler.py encoder.py decoder.py attention.py"


def test_pointer_net(archive, load):
    directory = unpacked(archive, "pointer_net", POINTER_NET, modelFile="model.py", modelVersion="shanghai")
    model = load(directory, "handler.py:handle", batch_size=2)
    request = read("pointer_net", "request.json")
    _, _, answers = model.predict({"body": json.loads(request)}, {"data": bytearray(request)})
    assert [answer.body for answer in answers] == [read("pointer_net", "expected.json")] * 2
    code, message, _ = model.predict({"body": [[0, 0]]}, {"body": [[0, 0], [1, 1]]})
    assert (code, message) == (400, "all sequences of a batch must have the same length")


def test_two_classes_in_the_model_file(archive, load):
    files = {name: read("pointer_net", name) for name in POINTER_NET.split()}
    files["model.py"] += b"\n\nclass Another(torch.nn.Module):\n    pass\n"
    with pytest.raises(ValueError, match="Expected only one class as model definition") as failure:
        load(archive(files, modelFile="model.py"), "handler.py:handle")
    assert "Another" in str(failure.value)
    assert "PointerNet" in str(failure.value)
