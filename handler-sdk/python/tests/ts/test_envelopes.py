"""Request envelopes, alone and with several requests in a batch."""

import asyncio
import base64
import json

import pytest

HANDLER = """
def handle(data, context):
    if data is None:
        return None
    context.seen = data
    return ANSWER(data)
"""


def handler(answer):
    return {"h.py": HANDLER.replace("ANSWER(data)", answer)}


def body(value):
    return {"body": value}


@pytest.fixture
def served(archive, load):
    def make(envelope, answer="[row for row in data]"):
        return load(archive(handler(answer)), "h.py", envelope=envelope)

    return make


def test_body(served):
    model = served("body", "[row + '!' for row in data]")
    code, _, answers = model.predict({"body": "a"}, {"data": "b"})
    assert code == 200
    assert [answer.body for answer in answers] == [b"a!", b"b!"]


def test_json_joins_and_cuts(served):
    model = served("json", "[row * 2 for row in data]")
    bodies = [body({"instances": [1, 2]}), body(bytearray(b'{"instances": []}')), body('{"instances": [5]}')]
    assert model.ask(*bodies) == [{"predictions": [2, 4]}, {"predictions": []}, {"predictions": [10]}]
    assert model.context.seen == [1, 2, 5]


def test_json_is_text_on_one_line(served):
    _, _, answers = served("json").predict(body({"instances": [1, 2]}))
    assert answers[0].body == b'{"predictions": [1, 2]}'


def test_json_decodes_b64(served):
    model = served("json", "[0 for row in data]")
    picture = {"b64": base64.b64encode(b"\x00picture").decode()}
    model.ask(body({"instances": [picture, {"image": picture, "id": 4}]}))
    assert model.context.seen == [b"\x00picture", {"image": b"\x00picture", "id": 4}]


@pytest.mark.parametrize("envelope", ["json", "kserve"])
@pytest.mark.parametrize("wrong", [bytearray(b"{"), {"rows": []}, {"instances": 3}, [1], 4])
def test_wrong_bodies_fail_alone(served, envelope, wrong):
    from zoo_handler.errors import PredictionException

    model = served(envelope)
    model.predict(body({"instances": [1]}), body(wrong))
    answers = model.service._entry_point([{"body": {"instances": [1]}}, {"body": wrong}], model.context)
    assert isinstance(answers[1], PredictionException)
    assert answers[1].error_code == 400
    assert "1" in str(answers[0])


def test_if_all_bodies_are_wrong_the_handler_is_not_called(served):
    model = served("kserve", "1 / 0")
    (answer,) = model.service._entry_point([{"body": {}}], model.context)
    assert answer.error_code == 400
    assert "instances" in answer.message


def test_kserve(served):
    model = served("kserve", "[row['data'] for row in data]")
    assert model.ask(body({"instances": [{"data": "a"}, {"data": "b"}]})) == [{"predictions": ["a", "b"]}]
    assert model.explain(body({"instances": [{"data": "a"}]})) == [{"explanations": ["a"]}]


def test_kserve_answers_each_request_of_a_batch(served):
    model = served("kserve")
    rows = [body({"instances": [1, 2]}), body({"instances": [3]}), body({"instances": [4, 5, 6]})]
    assert model.ask(*rows) == [{"predictions": [1, 2]}, {"predictions": [3]}, {"predictions": [4, 5, 6]}]


def test_kserve_alone_takes_any_number_of_predictions(served):
    assert served("kserve", "['all of them']").ask(body({"instances": [1, 2]})) == [
        {"predictions": ["all of them"]}
    ]


@pytest.mark.parametrize("answer", ["['all of them']", "'text'"])
def test_results_that_cannot_be_cut_fail_the_batch(served, caplog, answer):
    code, message, _ = served("kserve", answer).predict(body({"instances": [1, 2]}), body({"instances": [3]}))
    assert (code, message) == (503, "Prediction failed")
    assert "one result for each row" in caplog.text


def tensor(data, shape, datatype="INT64", name="x"):
    return {"name": name, "shape": shape, "datatype": datatype, "data": data}


def test_kserve_v2(served):
    model = served("kservev2", "[row['data'] for row in data]")
    request = {"id": "mine", "inputs": [tensor([1, 2, 3, 4, 5, 6], [2, 3]), tensor([1.5], [1], "FP32", "y")]}
    (answer,) = model.ask(body(request))
    assert answer == {
        "id": "mine",
        "model_name": "m",
        "model_version": "1.0",
        "outputs": [
            {"name": "x", "datatype": "INT64", "data": [1, 2, 3, 4, 5, 6], "shape": [2, 3]},
            {"name": "y", "datatype": "FP64", "data": [1.5], "shape": [1]},
        ],
    }
    assert model.context.seen[0] == tensor([[1, 2, 3], [4, 5, 6]], [2, 3])
    assert (model.context.input_names, model.context.input_request_id) == (["x", "y"], "mine")


def test_kserve_v2_answers_each_request_of_a_batch(served):
    model = served("kservev2", "[row['data'] for row in data]")
    first = {"inputs": [tensor([1], [1], name="a"), tensor([2], [1], name="b")]}
    second = {"id": "second", "inputs": [tensor([3], [1], name="c")]}
    answers = model.ask(body(first), body(second))
    assert [answer["id"] for answer in answers] == ["r0", "second"]
    assert [[output["name"] for output in answer["outputs"]] for answer in answers] == [["a", "b"], ["c"]]


@pytest.mark.parametrize(
    ("answer", "output"),
    [
        ("[3]", ("INT64", [3], [1])),
        ("[True]", ("BOOL", [True], [1])),
        ("['text']", ("BYTES", ["text"], [1])),
        ("[b'text']", ("BYTES", ["text"], [1])),
        ("[['a', 'b']]", ("BYTES", ["a", "b"], [2])),
        ("[{'cat': 0.5}]", ("BYTES", ['{"cat": 0.5}'], [1])),
        ("[[1, 2.5]]", ("FP64", [1, 2.5], [2])),
        ("[[[1], [2, 3]]]", ("BYTES", ["[[1], [2, 3]]"], [1])),
        ("[[]]", ("BYTES", [], [0])),
        ("[(1, 2)]", ("INT64", [1, 2], [2])),
    ],
)
def test_kserve_v2_datatypes(served, answer, output):
    (found,) = served("kservev2", answer).ask(body({"inputs": [tensor([1], [1])]}))[0]["outputs"]
    assert (found["datatype"], found["data"], found["shape"]) == output


@pytest.mark.parametrize(
    "dtype", "bool uint8 uint16 uint32 uint64 int8 int16 int32 int64 float16 float32 float64".split()
)
def test_kserve_v2_arrays(served, dtype):
    pytest.importorskip("numpy")
    model = served("kservev2", "[__import__('numpy').ones((2, 1), '{}')]".format(dtype))
    (found,) = model.ask(body({"inputs": [tensor([1], [1])]}))[0]["outputs"]
    named = {"b": "BOOL", "u": "UINT", "i": "INT", "f": "FP"}[dtype[0]]
    assert found["datatype"] == named + "".join(char for char in dtype if char.isdigit())
    assert (found["data"], found["shape"]) == ([1, 1], [2, 1])


def test_kserve_v2_bytes_come_as_the_first_element(served):
    model = served("kservev2", "[0]")
    model.ask(body({"inputs": [tensor(["one", "two"], [2], "BYTES")]}))
    assert model.context.seen[0]["data"] == "one"


@pytest.mark.parametrize(
    ("inputs", "problem"),
    [
        ([tensor([1, 2], [3])], "2 elements don't fit the shape [3]"),
        ([{"name": "x", "data": [1]}], "lacks shape, datatype"),
        ([4], "lacks name"),
        ([tensor([], [0], "BYTES")], "BYTES without an element"),
        (None, "`inputs`"),
    ],
)
def test_kserve_v2_wrong_inputs(served, inputs, problem):
    model = served("kservev2")
    (answer,) = model.service._entry_point([{"body": {"inputs": inputs}}], model.context)
    assert answer.error_code == 400
    assert problem in answer.message


def test_asynchronous_handlers_keep_their_requests_apart():
    from types import SimpleNamespace

    from ts.torch_handler.request_envelope.json import JSONEnvelope

    async def entry(rows, _context):
        await asyncio.sleep(0)
        return [row + 1 for row in rows]

    envelope = JSONEnvelope(entry)

    async def both():
        calls = [envelope.handle([body({"instances": rows})], SimpleNamespace()) for rows in ([1], [2, 3])]
        calls += [envelope.handle([body({"instances": [9]})] * 2, SimpleNamespace())]
        return await asyncio.gather(*calls)

    one, two, three = asyncio.run(both())
    assert json.loads(one[0]) == {"predictions": [2]}
    assert json.loads(two[0]) == {"predictions": [3, 4]}
    assert [json.loads(part) for part in three] == [{"predictions": [10]}] * 2


def test_base_is_for_envelopes_of_ones_own():
    from ts.torch_handler.request_envelope.base import BaseEnvelope

    class Twice(BaseEnvelope):
        def parse_input(self, data):
            return data + data

        def format_output(self, results):
            return results[: len(results) // 2]

    assert Twice(lambda rows, context: rows).handle([1], None) == [1]
    with pytest.raises(TypeError):
        BaseEnvelope(len)
