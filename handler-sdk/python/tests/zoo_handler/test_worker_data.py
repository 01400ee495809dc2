"""What handlers get: values by content type, headers, and the Context."""

import json

import pytest

from peer import batch, body, header_block, item, part

SHOW = """
def handle(data, context):
    return data and [repr([(name, type(it).__name__, it) for name, it in row.items()]) for row in data]
"""


def shown(worker, *parts):
    return eval(worker.text(*parts), {"bytearray": bytearray})


@pytest.mark.parametrize(
    "content_type, raw, kind, value",
    [
        ("application/json", b'{"a": [1, null]}', "dict", {"a": [1, None]}),
        ("application/json", b"[1]", "list", [1]),
        ("application/json", b"null", "NoneType", None),
        ("application/json", b'"x"', "str", "x"),
        ("application/json", b"{broken", "bytearray", bytearray(b"{broken")),
        ("application/json", b"[" * 100000, "bytearray", bytearray(b"[" * 100000)),
        ("application/json", b"", "bytearray", bytearray()),
        ("Application/JSON", b"[1]", "bytearray", bytearray(b"[1]")),
        ("application/json; charset=utf-8", b"[1]", "bytearray", bytearray(b"[1]")),
        ("text/plain", "größer".encode(), "str", "größer"),
        ("text", b"x", "str", "x"),
        ("text/plain", b"\xff\xfe", "bytearray", bytearray(b"\xff\xfe")),
        ("application/octet-stream", b"\x00\x01", "bytearray", bytearray(b"\x00\x01")),
        ("image/png", b"", "bytearray", bytearray()),
        ("", b"[1]", "bytearray", bytearray(b"[1]")),
    ],
)
@pytest.mark.parametrize("late", [False, True], ids=["inline", "in body frames"])
def test_value_by_content_type(start, content_type, raw, kind, value, late):
    worker = start(SHOW)
    worker.send(batch(item(1, part(raw, content_type=content_type, bodies=late))))
    if late:
        worker.send(*[body(1, at, raw[at : at + 60000]) for at in range(0, len(raw), 60000)])
    assert eval(worker.reply().body, {"bytearray": bytearray}) == [("body", kind, value)]


def test_unparsable_json_is_warned_about(start):
    worker = start(SHOW)
    worker.text(part(b"{", content_type="application/json"))
    assert "can't be parsed" in worker.log()


@pytest.mark.parametrize(
    "options",
    [{"decode_input": False}, {"environment": {"TS_DECODE_INPUT_REQUEST": "false"}}],
    ids=["load", "env"],
)
def test_decoding_can_be_switched_off(start, options):
    worker = start(SHOW, **options)
    assert shown(worker, part(b"[1]", content_type="application/json")) == [
        ("body", "bytearray", bytearray(b"[1]"))
    ]
    assert shown(worker, part(b"x", content_type="text/plain")) == [("body", "bytearray", bytearray(b"x"))]


def test_parts_keep_their_order_and_the_last_of_a_name_wins(start):
    worker = start(SHOW)
    found = shown(worker, part(b"1", "a"), part(b"2", "b", "text/plain"), part(b"3", "a"))
    assert found == [("a", "bytearray", bytearray(b"3")), ("b", "str", "2")]
    assert shown(worker, part(b"1", "a", "text/x"), part(b"2", "a", "text/x")) == [("a", "str", "2")]
    assert shown(worker, part(b"1", "a", "text/x"), part(b"2", "a")) == [("a", "bytearray", bytearray(b"2"))]


def test_no_parts_is_an_empty_dict(start):
    assert shown(start(SHOW)) == []


def test_a_body_in_place_is_the_handlers_to_change(start):
    worker = start(
        "def handle(data, context):\n"
        "    if data is None: return\n"
        "    data[0]['body'].extend(b'!')\n"  # fails while anybody else looks at the bytearray
        "    return [bytes(data[0]['body'])]\n"
    )
    worker.send(batch(item(1, part(b"abc", bodies=True))), body(1, 0, b"abc"))
    assert worker.reply().body == b"abc!"


HEADERS = [
    ("content-type", "text/html"),
    ("x-a-b", "1"),
    ("x-a-b", "2"),
    ("ts_request_sequence_id", "s-7"),
    ("ö", "ü"),
]


def evaluate(start, expression, **load):
    """A worker whose handler answers the value of an expression of ``data``, ``context``, ``headers``."""
    return start(
        "def handle(data, context):\n"
        "    if data is None: return\n"
        "    headers = context.get_all_request_header(0)\n"
        "    return [repr(({}))] * len(data)\n".format(expression),
        **load,
    )


@pytest.mark.parametrize(
    "expression, value",
    [
        ("context.get_request_header(0, 'content-type')", "text/html"),
        ("context.get_request_header(0, 'CONTENT-TYPE')", "text/html"),
        ("headers['Content-type']", "text/html"),
        ("'CONTENT-type' in headers, 'nope' in headers, 3 in headers", (True, False, False)),
        ("headers.get('x-A-b'), headers.get('none'), headers.get('none', 5)", ("2", None, 5)),
        (
            "sorted(headers)",
            ["Content-Type", "X-A-B", "body", "explain", "ts_request_sequence_id", "url_path", "Ö"],
        ),
        ("headers['body']", {"content-type": "image/png"}),
        ("headers['url_path'], headers['explain'], headers.get('describe')", ("v1/chat", "False", None)),
        ("headers.get('EXPLAIN'), headers.get('Body')", (None, None)),
        ("headers['ö']", "ü"),
        (
            "isinstance(headers, dict), type(headers.copy()).__name__, dict(headers) == headers",
            (True, "Headers", True),
        ),
        ("__import__('copy').deepcopy(headers) == headers", True),
        ("__import__('pickle').loads(__import__('pickle').dumps(headers))['x-a-b']", "2"),
        (
            "context.get_request_id(), context.get_request_id(1), context.request_ids",
            ("id-a", None, {0: "id-a"}),
        ),
        ("context.get_sequence_id(0)", "s-7"),
        ("context.request_processor[0].get_request_property('X-a-b')", "2"),
        ("context.request_processor[0].get_request_properties() is headers", True),
        ("context.get_response_status(0)", (200, None)),
        ("context.model_name, context.model_yaml_config, context.manifest", ("m", {"a": 1}, {"x": []})),
        ("context.stopping_criteria, context.cl_socket", (None, None)),
        ("context == context, context == 1", (True, False)),
        ("context.is_cancelled()", False),
    ],
)
def test_context(start, expression, value):
    worker = evaluate(start, expression, config={"a": 1}, manifest={"x": []})
    text = worker.text(
        part(b"", content_type="image/png"), headers=HEADERS, request_id="id-a", url_path="v1/chat"
    )
    assert eval(text) == value


def test_system_properties(start):
    worker = evaluate(
        start, "sorted(context.system_properties.items())", batch_size=4, gpu=2, limit_max_image_pixels=False
    )
    assert eval(worker.text(part(b""))) == [
        ("batch_size", 4),
        ("gpu_id", 2),
        ("limit_max_image_pixels", False),
        ("model_dir", worker.directory),
        ("server_name", "MMS"),
        ("server_version", "0.12.0"),
    ]


def test_names_of_sequence_headers_come_from_the_server(start):
    worker = evaluate(
        start,
        "context.header_key_sequence_id, context.header_key_sequence_end",
        headers={"sequence_id": "my-seq"},
    )
    assert eval(worker.text(part(b""))) == ("my-seq", "ts_request_sequence_end")


def test_explain_and_describe(start):
    worker = evaluate(start, "headers['explain'] if 'explain' in headers else (headers['describe'], data)")
    assert eval(worker.text(part(b""), explain=True)) == "True"
    assert eval(worker.text(part(b""))) == "False"
    import struct

    from peer import frame

    worker.send(frame(0x17, struct.pack("<QH", 9, 2) + b"rq"))
    reply = worker.reply()
    assert (reply.item, eval(reply.body)) == (9, ("True", [{}]))


def test_a_client_can_not_fake_describe(start):
    worker = evaluate(start, "context.get_request_header(0, 'describe')")
    assert eval(worker.text(part(b""), headers=[("describe", "True"), ("explain", "True")])) is None


def test_context_is_one_object_that_handlers_may_write_to(start):
    worker = start(
        "def handle(data, context):\n"
        "    if data is None:\n"
        "        context.cache = {'n': 0}\n"
        "        return\n"
        "    context.cache['n'] += 1\n"
        "    return [str(context.cache['n'])] * len(data)\n"
    )
    assert [worker.text(part(b"")) for _ in range(3)] == ["1", "2", "3"]


def test_headers_of_one_batch_do_not_reach_the_next(start):
    worker = start(
        "def handle(data, context):\n"
        "    if data is None: return\n"
        "    if context.get_request_header(0, 'x-set'):\n"
        "        context.set_response_header(0, 'X-Was', 'set')\n"
        "        context.set_response_status(404, 'Gone Fishing', 0)\n"
        "    return ['x'] * len(data)\n"
    )
    reply = worker.predict(part(b""), headers=[("x-set", "1")])
    assert (reply.status, reply.headers) == (404, {"x-was": "set", ":reason": "Gone Fishing"})
    reply = worker.predict(part(b""))
    assert (reply.status, reply.headers) == (200, {})


def test_a_header_block_that_lies_ends_the_worker(start):
    worker = evaluate(start, "len(headers)")
    raw = bytearray(batch(item(1, part(b""), headers=[("a", "b")])))
    at = raw.index(header_block([("a", "b")]))
    raw[at : at + 2] = b"\xff\xff"
    worker.send(bytes(raw))
    assert worker.receive() is None
    assert worker.wait() == 1
    assert "header block" in worker.log()


def test_metrics_come_before_the_answers_of_their_batch(start):
    worker = start(
        "def handle(data, context):\n"
        "    if data is None: return\n"
        "    context.metrics.add_time('HandlerTime', 12.5, None, 'ms')\n"
        "    return ['x'] * len(data)\n"
    )
    worker.send(batch(item(1, part(b""), request_id="a"), item(2, part(b""), request_id="b")))
    payload = worker.expect(0x20)
    assert payload[:2] == b"\x01\x00"
    assert b"HandlerTime" in payload and b"a,b" in payload and b"ModelName" in payload
    assert sorted(worker.replies(2)) == [1, 2]
    worker.send(batch(item(3, part(b""), request_id="c")))
    assert b"\x01\x00c" in worker.expect(0x20)
    assert worker.reply().item == 3


def test_json_answers_are_indented(start):
    worker = start("def handle(data, context):\n    return data and [row['body'] for row in data]\n")
    assert worker.text(part(b"[1,0]", content_type="application/json")) == json.dumps([1, 0], indent=2)


MIXED = """
calls = []

def handle(data, context):
    if data is None:
        return
    kind = context.get_request_header(0, "explain")  # what TorchServe's handlers take for the whole batch
    calls.append((kind, [bytes(row["body"]).decode() for row in data]))
    return [repr(calls)] * len(data)
"""


@pytest.mark.parametrize("load", [{}, {"asynchronous": True, "concurrency": 4}], ids=["sync", "async"])
def test_a_handler_gets_predictions_and_explanations_apart(start, load):
    worker = start(
        MIXED if not load else MIXED.replace("def handle", "async def handle"), batch_size=4, **load
    )
    kinds = [False, True, False, True]
    worker.send(batch(*[item(n, part(b"%d" % n), explain=kind) for n, kind in enumerate(kinds, 1)]))
    replies = worker.replies(4)
    predictions, explanations = ("False", ["1", "3"]), ("True", ["2", "4"])
    assert [eval(replies[n].body) for n in (1, 3)] == [[predictions]] * 2
    assert [eval(replies[n].body) for n in (2, 4)] == [[predictions, explanations]] * 2
    worker.send(batch(item(5, part(b"5"), explain=True), item(6, part(b"6"), explain=True)))
    assert eval(worker.replies(2)[6].body)[2:] == [("True", ["5", "6"])]
    worker.drain()
