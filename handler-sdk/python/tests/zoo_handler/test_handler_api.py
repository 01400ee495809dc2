"""The API for new handlers, on real workers."""

import struct

import pytest

from peer import batch, frame, item, part

IMPORTS = "import asyncio\nfrom zoo_handler import Handler, PredictionException, Request, Response\n"


def handler(start, body, **load):
    """A worker whose handler class has this body."""
    lines = "".join("    {}\n".format(line) for line in body.splitlines())
    return start(IMPORTS + "class MyHandler(Handler):\n" + lines, **load)


def outcomes(worker, *bodies):
    """What one batch of these bodies is answered, in order."""
    worker.send(batch(*[item(i, part(body)) for i, body in enumerate(bodies, 1)]))
    return [reply.outcome for _, reply in sorted(worker.replies(len(bodies)).items())]


WAYS = {
    "predict_one": "def predict_one(self, request):\n    return request.json()['x']",
    "predict": "def predict(self, batch):\n    return [request.json()['x'] for request in batch]",
    "async predict_one": (
        "async def predict_one(self, request):\n    await asyncio.sleep(0)\n    return request.json()['x']"
    ),
    "async predict": (
        "async def predict(self, batch):\n"
        "    await asyncio.sleep(0)\n"
        "    return [request.json()['x'] for request in batch]"
    ),
    "async load": (
        "async def load(self, context):\n    await asyncio.sleep(0)\n    self.key = 'x'\n"
        "def predict_one(self, request):\n    return request.json()[self.key]"
    ),
}


@pytest.mark.parametrize("way", sorted(WAYS))
def test_a_bad_request_fails_alone(start, way):
    worker = handler(start, WAYS[way])
    found = outcomes(worker, b'{"x": "a"}', b"{", b'{"x": [1]}', b"\xff")
    assert found[0] == (200, "a")
    assert found[1][0] == 400 and found[1][1].startswith("The body is not JSON: ")
    assert found[2] == (200, "[\n  1\n]")
    assert found[3][0] == 400
    worker.drain()
    assert "Traceback" not in worker.log()


@pytest.mark.parametrize("way", ["predict_one", "async predict_one"])
def test_what_predict_one_raises_fails_its_request_only(start, way):
    worker = handler(start, WAYS[way])
    assert outcomes(worker, b'{"y": 1}', b'{"x": "fine"}') == [(503, "Prediction failed"), (200, "fine")]
    assert "KeyError: 'x'" in worker.log()


@pytest.mark.parametrize(
    "body, found",
    [
        ("raise request.error('no cats', 422)", (422, "no cats")),
        ("return request.error('no dogs')", (400, "no dogs")),
        ("raise PredictionException('teapot', 418)", (418, "teapot")),
        ("return PredictionException('teapot', 418)", (418, "teapot")),
        ("return Response('made', 201)", (201, "made")),
        ("return Response({'a': 1}, 202)", (202, '{\n  "a": 1\n}')),
        ("return Response()", (200, "")),
        ("return None", (200, "null")),
    ],
)
def test_answers_of_one(start, body, found):
    worker = handler(start, "def predict_one(self, request):\n    " + body)
    assert outcomes(worker, b"x") == [found]


@pytest.mark.parametrize("kind", ["def", "async def"])
@pytest.mark.parametrize(
    "body, found",
    [
        ("raise batch[0].error('no cats', 422)", [(422, "no cats")] * 3),
        (
            "if len(batch) == 3: raise batch[1].error('no cats', 422)\n    return ['%d left' % len(batch)] * len(batch)",
            [(200, "2 left"), (422, "no cats"), (200, "2 left")],
        ),
        ("raise batch[-1].error(str(len(batch)))", [(400, "1"), (400, "2"), (400, "3")]),
        ("raise PredictionException('all', 418)", [(418, "all")] * 3),
        (
            "return ['a', PredictionException('b', 418), Response('c', 203)]",
            [(200, "a"), (418, "b"), (203, "c")],
        ),
        ("return ['a']", [(503, "number of batch response mismatched")] * 3),
        ("return 'abc'", [(503, "Invalid model predict output")] * 3),
        (
            "if len(batch) == 3: raise batch[1].error('x')\n    return ['a'] * 3",
            [(503, "number of batch response mismatched")] * 3,
        ),
        (
            "self.seen = getattr(self, 'seen', None) or batch[0]\n    raise self.seen.error('always the first')",
            [(400, "always the first")] * 3,
        ),
    ],
)
def test_answers_of_a_batch(start, kind, body, found):
    worker = handler(start, "{} predict(self, batch):\n    {}".format(kind, body))
    assert outcomes(worker, b"1", b"2", b"3") == found


def test_request(start):
    worker = handler(
        start,
        "def predict_one(self, r):\n"
        "    return repr((r.id, r.path, r.explain, r.headers['x-a'], r.headers.get('X-B'), r.content_type, r.text,\n"
        "                 bytes(r.body), r.is_cancelled(), r.remaining is not None and 0 < r.remaining <= 60))",
    )
    text = worker.text(
        part(b"[1]", content_type="application/json"),
        headers=[("x-a", "1")],
        request_id="id-7",
        url_path="v1/chat",
        explain=True,
        timeout=60000,
    )
    assert eval(text) == ("id-7", "v1/chat", True, "1", None, "application/json", "[1]", b"[1]", False, True)
    assert eval(worker.text(part(b"x"), headers=[("x-a", "2")]))[-1] is False


@pytest.mark.parametrize(
    "parts, body",
    [
        ([part(b"1", "body"), part(b"2", "other")], "1"),
        ([part(b"1", "other"), part(b"2", "data")], "2"),
        ([part(b"1", "only")], "1"),
        ([], ""),
    ],
)
def test_the_body_ends_the_confusion_of_data_and_body(start, parts, body):
    worker = handler(start, "def predict_one(self, request):\n    return request.body")
    assert worker.text(*parts) == body


def test_a_form_without_a_main_part(start):
    worker = handler(
        start,
        "def predict_one(self, request):\n"
        "    if request.path: return repr(sorted((n, bytes(p.body), p.content_type) for n, p in request.parts.items()))\n"
        "    return request.body",
    )
    parts = [part(b"1", "left", "image/png"), part(b"2", "right")]
    assert worker.predict(*parts).outcome == (
        400,
        "The request has no part named body or data. It has: left, right",
    )
    assert eval(worker.text(*parts, url_path="x")) == [("left", b"1", "image/png"), ("right", b"2", "")]


def test_response_headers(start):
    worker = handler(
        start,
        "def predict_one(self, request):\n"
        "    return Response('x', 203, content_type='text/csv', headers={'X-A': 'b'}, reason='Other')",
    )
    reply = worker.predict(part(b""))
    assert (reply.status, reply.headers) == (
        203,
        {"content-type": "text/csv", "x-a": "b", ":reason": "Other"},
    )


@pytest.mark.parametrize(
    "body, headers",
    [
        ("def predict_one(self, request):\n    for c in request.text: yield c", {}),
        ("async def predict_one(self, request):\n    for c in request.text: yield c", {}),
        ("def predict(self, batch):\n    return [iter(request.text) for request in batch]", {}),
        ("def predict(self, batch):\n    for i in range(3): yield [r.text[i] for r in batch]", {}),
        ("async def predict(self, batch):\n    for i in range(3): yield [r.text[i] for r in batch]", {}),
        (
            "def predict_one(self, request):\n"
            "    return Response(iter(request.text), content_type='text/event-stream')",
            {"content-type": "text/event-stream"},
        ),
    ],
)
def test_streaming(start, body, headers):
    worker = handler(start, body)
    head = worker.predict(part(b"abc"))
    assert head.streams
    assert head.headers == headers  # no ts_stream_next: that is TorchServe's
    assert worker.chunks(1) == ([b"a", b"b", b"c"], (200, False, ""))


def test_load_describe_and_signature(start):
    worker = handler(
        start,
        "signature = {'inputs': [{'name': 'x'}], 'outputs': []}\n"
        "def load(self, context): self.name = context.model_name\n"
        "def describe(self): return {'name': self.name}\n"
        "def predict_one(self, request): return self.name",
    )
    assert worker.loaded["signature"] == {"inputs": [{"name": "x"}], "outputs": []}
    worker.send(frame(0x17, struct.pack("<QH", 1, 0)))
    assert worker.reply().body == b'{\n  "name": "m"\n}'


def test_concurrency_of_an_async_handler(start):
    body = "async def predict_one(self, request): return ''"
    assert handler(start, body, concurrency=8).loaded["concurrency"] == 8
    assert handler(start, "concurrency = 2\n" + body, concurrency=8).loaded["concurrency"] == 2
    assert handler(start, "concurrency = 20\n" + body, concurrency=8).loaded["concurrency"] == 8


def test_helper_classes_beside_the_handler(start):
    worker = start(
        IMPORTS + "class Model: pass\n"
        "class Mine(Handler):\n    def predict_one(self, request): return 'mine'\n"
        "class Net(Model): pass\n"
    )
    assert worker.text(part(b"")) == "mine"


def test_a_class_named_by_the_manifest(start):
    source = IMPORTS + "".join(
        "class {0}(Handler):\n    def predict_one(self, request): return '{0}'\n".format(name)
        for name in "AB"
    )
    assert start(source, handler="h.py:B").text(part(b"")) == "B"
    failed = start(source, ready=False).expect_load_failed()
    assert failed["kind"] == "invalid" and "Expected only one class" in failed["message"]


def test_a_handler_without_predict(start):
    worker = handler(start, "pass")
    assert worker.predict(part(b"")).outcome == (503, "Prediction failed")
    assert "MyHandler has neither predict nor predict_one" in worker.log()


def test_envelopes_are_refused(start):
    failed = handler(
        start, "def predict_one(self, request): return ''", envelope="kserve", ready=False
    ).expect_load_failed()
    assert failed["kind"] == "invalid" and "kserve" in failed["message"]


def test_a_worker_of_this_api_is_small(start):
    worker = handler(start, "def predict_one(self, request): return request.text")
    worker.text(part(b"x"))
    with open("/proc/{}/status".format(worker.process.pid)) as status:
        rss = next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
    assert rss < 25 * 1024
