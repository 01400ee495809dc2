"""The examples, as their READMEs say, and what goes wrong with them."""

import json
import os

import pytest

pytest.importorskip("torchvision")


def read(folder, name):
    with open(os.path.join(folder, name), "rb") as file:
        return file.read()


@pytest.fixture(scope="module")
def greedy_time(zoo, examples):
    folder = os.path.join(examples, "greedy_time")
    zoo.archive(
        folder, "greedy_time", "--version", "1.0", "--model-file", "model.py", "--handler", "handler.py"
    )
    zoo.register("greedy_time.mar")
    yield folder
    zoo.drop("greedy_time")


def test_greedy_time(zoo, greedy_time):
    reply = zoo.predict("greedy_time", read(greedy_time, "request.json"), "application/json")
    assert (reply.status, reply.text) == (200, "[\n  1,\n  0\n]")
    assert reply.body == read(greedy_time, "expected.json")
    assert "content-type" not in reply.headers
    zoo.logged("greedy_time is ready on cpu", out=True)
    zoo.logged("jobs: 2, mean need: 2.75", out=True)


def test_greedy_time_takes_bytes(zoo, greedy_time):
    reply = zoo.predict("greedy_time/1.0", read(greedy_time, "request.json"))
    assert (reply.status, reply.text) == (200, "[\n  1,\n  0\n]")


def test_greedy_time_cannot_explain(zoo, greedy_time):
    reply = zoo.predict("greedy_time", read(greedy_time, "request.json"), "application/json", "explanations")
    assert (reply.status, reply.json()["message"]) == (503, "Prediction failed")
    zoo.logged("Calculating Explanations", out=True)
    zoo.logged("NotImplementedError: GreedyTimeHandler can't explain: it has no get_insights")


def test_a_handler_that_fails_says_why_in_the_log(zoo, greedy_time):
    picture = b"\x89PNG\r\n\x1a\n, as far as it goes"
    reply = zoo.predict("greedy_time", picture, kind="explanations", method="PUT")
    assert (reply.status, reply.json()["message"]) == (503, "Prediction failed")
    zoo.logged("handler.py", "in preprocess")
    zoo.logged("UnicodeDecodeError: 'utf-8' codec can't decode byte 0x89")


POINTER_NET = ("--version", "shanghai", "--runtime", "python3", "--model-file", "model.py")
POINTER_NET += ("--handler", "handler.py:handle")


def test_pointer_net(zoo, examples):
    folder = os.path.join(examples, "pointer_net")
    zoo.archive(folder, "pointer_net", *POINTER_NET, "--extra-files", "encoder.py,decoder.py,attention.py")
    reply = zoo.register("pointer_net.mar")
    assert reply.json() == {
        "status": 'Model "pointer_net" Version: shanghai registered with 1 initial workers'
    }
    described = zoo.describe("pointer_net")
    assert (described["modelVersion"], described["runtime"]) == ("shanghai", "python3")
    points = json.loads(read(folder, "request.json"))
    for path in ("pointer_net", "pointer_net/shanghai"):
        reply = zoo.predict_json(path, points)
        assert (reply.status, reply.body) == (200, read(folder, "expected.json"))
    zoo.drop("pointer_net")


def test_two_classes_in_the_model_file(zoo, examples, tmp_path):
    for name in ("model.py", "handler.py", "encoder.py", "decoder.py", "attention.py"):
        text = read(os.path.join(examples, "pointer_net"), name)
        if name == "model.py":
            text += b"\n\nclass Second(PointerNet):\n    pass\n"
        (tmp_path / name).write_bytes(text)
    zoo.archive(tmp_path, "two", *POINTER_NET, "--extra-files", "encoder.py,decoder.py,attention.py")
    assert zoo.manage("POST", "/models?url=two.mar").status == 200
    assert zoo.manage("PUT", "/models/two?min_worker=1&synchronous=true").status == 500
    why = "ValueError: Expected only one class as model definition. [<class 'model.PointerNet'>, <class 'model.Second'>]"
    worker = zoo.worker("two")
    assert worker["status"] == "UNLOADING"
    assert why in worker["lastFailure"]
    zoo.logged(why)
    zoo.drop("two")
