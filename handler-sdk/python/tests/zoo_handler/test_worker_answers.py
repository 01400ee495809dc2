"""What a handler returns or raises, and what the server hears of it."""

import pytest

from peer import batch, item, part


def answering(start, expression, **load):
    """A worker whose handler answers the value of an expression; statements raise through ``fail``."""
    return start(
        "import json, torch_stand_in\n"
        "from zoo_handler import PredictionException\n"
        "def fail(cause): raise cause\n"
        "class Odd(list): pass\n"
        "cuda = RuntimeError('CUDA out of memory. Tried to allocate')\n"
        "loop = []\n"
        "loop.append(loop)\n"
        "def handle(data, context):\n"
        "    if data is None: return\n"
        "    return {}\n".format(expression),
        files={"torch_stand_in.py": TORCH},
        **load,
    )


# Only what the worker looks at: a module named torch that a handler has imported, with Tensor and save.
TORCH = """
import sys, types
torch = types.ModuleType("torch")
class Tensor:
    pass
torch.Tensor = Tensor
torch.save = lambda value, out: out.write(b"saved tensor")
sys.modules["torch"] = torch
"""


@pytest.mark.parametrize(
    "expression, outcome",
    [
        ("[b'\\x00\\xff']", (200, b"\x00\xff")),
        ("[bytearray(b'ab')]", (200, b"ab")),
        ("[memoryview(b'ab')]", (200, b"ab")),
        ("['gr\\u00f6\\u00dfer']", (200, "größer".encode())),
        ("['\\ud800']", (200, b"?")),
        ("['']", (200, b"")),
        ("[[1, 0]]", (200, b"[\n  1,\n  0\n]")),
        ("[{'a': None}]", (200, b'{\n  "a": null\n}')),
        ("[1.5]", (200, b"1.5")),
        ("[None]", (200, b"null")),
        ("[torch_stand_in.Tensor()]", (200, b"saved tensor")),
        ("Odd(['list subclass'])", (200, b"list subclass")),
    ],
)
def test_whole_answers(start, expression, outcome):
    reply = answering(start, expression).predict(part(b""))
    assert (reply.status, reply.body, reply.failed) == (*outcome, False)


@pytest.mark.parametrize(
    "expression, outcome",
    [
        ("fail(MemoryError())", (507, "Out of resources")),
        ("fail(cuda)", (507, "Out of resources")),
        ("fail(ValueError('x'))", (503, "Prediction failed")),
        ("fail(PredictionException('no such cat', 404))", (404, "no such cat")),
        ("fail(PredictionException('default'))", (500, "default")),
        ("fail(PredictionException('strange', 7))", (500, "strange")),
        ("fail(PredictionException('strange', None))", (500, "strange")),
        ("fail(PredictionException({'not': 'text'}, 400))", (400, "{'not': 'text'}")),
        ("None", (503, "Invalid model predict output")),
        ("('a',)", (503, "Invalid model predict output")),
        ("{'a': 1}", (503, "Invalid model predict output")),
        ("map(str, data)", (503, "Invalid model predict output")),
        ("[]", (503, "number of batch response mismatched")),
        ("['a', 'b']", (503, "number of batch response mismatched")),
        ("[object()]", (503, "Unsupported model output data type.")),
        ("[{1, 2}]", (503, "Unsupported model output data type.")),
        ("[loop]", (503, "Unsupported model output data type.")),
        ("[PredictionException('one', 418)]", (418, "one")),
        ("[ValueError('one')]", (503, "Prediction failed")),
        ("[MemoryError()]", (507, "Out of resources")),
        (
            "context.set_response_status(77) or ['x']",
            (500, "The handler set a response status that is none: 77"),
        ),
    ],
)
def test_failures(start, expression, outcome):
    worker = answering(start, expression)
    for _ in range(2):  # and the worker goes on
        reply = worker.predict(part(b""))
        assert reply.failed
        assert reply.outcome == outcome


def test_one_failing_item_does_not_fail_its_neighbours(start):
    worker = answering(start, "['a', PredictionException('b is ill', 400), object(), {1: 2}]")
    worker.send(batch(*[item(i, part(b"")) for i in range(1, 5)]))
    assert [(r.item, r.failed, *r.outcome) for r in worker.replies(4).values()] == [
        (1, False, 200, "a"),
        (2, True, 400, "b is ill"),
        (3, True, 503, "Unsupported model output data type."),
        (4, False, 200, '{\n  "1": 2\n}'),
    ]


def test_a_raised_error_fails_each_item_of_its_batch(start):
    worker = answering(start, "fail(PredictionException('all', 409))")
    worker.send(batch(*[item(i, part(b"")) for i in range(1, 4)]))
    assert {i: r.outcome for i, r in worker.replies(3).items()} == {i: (409, "all") for i in (1, 2, 3)}


def test_the_cause_is_in_the_log(start):
    worker = answering(start, "fail(ValueError('the very cause'))")
    worker.predict(part(b""))
    worker.drain()
    log = worker.log()
    assert "Invoking custom service failed." in log
    assert "Traceback" in log and "ValueError: the very cause" in log


def test_headers_status_and_content_type(start):
    worker = answering(
        start,
        "(context.set_response_content_type(0, 'text/csv'), context.set_response_header(1, 'X-Number', 7),"
        " context.set_response_status(201, 'Made', 1)) and ['a', 'b']",
    )
    worker.send(batch(item(1, part(b"")), item(2, part(b""))))
    replies = worker.replies(2)
    assert (replies[1].status, replies[1].headers) == (200, {"content-type": "text/csv"})
    assert (replies[2].status, replies[2].headers) == (201, {"x-number": "7", ":reason": "Made"})


def test_status_of_all(start):
    worker = answering(start, "context.set_all_response_status(202, 'Later') or ['a', 'b']")
    worker.send(batch(item(1, part(b"")), item(2, part(b""))))
    assert {(r.status, r.headers[":reason"]) for r in worker.replies(2).values()} == {(202, "Later")}


@pytest.mark.parametrize("name", ["'n' * 70000", "'big'"])
def test_headers_that_can_not_be_sent_fail_their_item_only(start, name):
    worker = answering(start, "context.set_response_header(0, {}, 'x' * 1100000) or ['a', 'b']".format(name))
    worker.send(batch(item(1, part(b"")), item(2, part(b""))))
    replies = worker.replies(2)
    assert replies[1].failed and replies[1].status == 500
    assert replies[2].outcome == (200, "b")


def test_an_answer_larger_than_the_limit(start):
    worker = answering(start, "[b'x' * 101, 'y' * 100]", max_response_bytes=100)
    worker.send(batch(item(1, part(b"")), item(2, part(b""))))
    replies = worker.replies(2)
    assert replies[1].outcome == (500, "The response of 101 bytes is larger than max_response_size (100)")
    assert replies[2].body == b"y" * 100


def test_a_buffer_that_the_handler_uses_again_is_not_sent_twice(start):
    worker = start(
        "buffer = bytearray(b'.')\n"
        "def handle(data, context):\n"
        "    if data is None: return\n"
        "    buffer[:] = data[0]['body']\n"
        "    return [buffer]\n"
    )
    worker.send(*[batch(item(i, part(str(i % 10).encode()))) for i in range(1, 20)])
    assert [r.body for r in worker.replies(19).values()] == [str(i % 10).encode() for i in range(1, 20)]


def test_prediction_exception_survives_pickling():
    import pickle

    from zoo_handler import PredictionException

    copy = pickle.loads(pickle.dumps(PredictionException("text", 404)))
    assert (copy.message, copy.error_code, str(copy)) == ("text", 404, "text : 404")


def test_print_and_logging_reach_standard_output(start):
    worker = start(
        "import logging\n"
        "def handle(data, context):\n"
        "    if data is None: return\n"
        "    print('printed \\ud800')\n"
        "    print('x' * (1 << 20))\n"
        "    logging.getLogger(__name__).info('logged')\n"
        "    return ['x']\n"
    )
    worker.text(part(b""))
    lines = worker.log().splitlines()
    assert "printed \\ud800" in lines and "logged" in lines and "x" * (1 << 20) in lines


def test_answers_are_coalesced_only_if_the_server_allows_it(start):
    """With ``coalesce: false`` an answer leaves before the next batch begins, which never ends here."""
    source = (
        "import threading\n"
        "def handle(data, context):\n"
        "    if data is None: return\n"
        "    if data[0]['body'] == b'stay': threading.Event().wait()\n"
        "    return ['x']\n"
    )
    worker = start(source, coalesce=False)
    worker.send(batch(item(1, part(b""))), batch(item(2, part(b"stay"))))
    assert worker.reply().item == 1


def test_a_slow_batch_is_not_waited_for(start):
    """An answer isn't held back if batches usually take longer than answers may wait."""
    source = (
        "import threading, time\n"
        "def handle(data, context):\n"
        "    if data is None: return\n"
        "    if data[0]['body'] == b'stay': threading.Event().wait()\n"
        "    time.sleep(0.002)\n"
        "    return ['x']\n"
    )
    worker = start(source)
    worker.send(batch(item(1, part(b""))), batch(item(2, part(b"stay"))))
    assert worker.reply().item == 1
