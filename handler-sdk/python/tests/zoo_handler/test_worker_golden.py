"""The golden frames of the protocol: the same files that the Rust tests read and write."""

import json
import os
import socket

import pytest

from conftest import SDK
from zoo_handler import wire
from zoo_handler.errors import LinkClosed
from zoo_handler.inbox import Inbox
from zoo_handler.link import Link

FOLDER = os.path.join(os.path.dirname(os.path.dirname(SDK)), "proto", "fixtures", "wire")
with open(os.path.join(FOLDER, "cases.json"), encoding="utf-8") as file:
    CASES = json.load(file)


def raw(name):
    with open(os.path.join(FOLDER, name + ".bin"), "rb") as file:
        return file.read()


def received(name):
    """The inbox after these bytes, with a Batch in front that makes the ids known."""
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    inbox = Inbox()
    link = Link(theirs, inbox)
    inbox.attach(link)
    inbox._received = 100
    inbox.credit[7] = 0
    ours.sendall(raw(name))
    ours.close()
    with pytest.raises(LinkClosed):
        while True:
            inbox.receive(True)
    link.close()
    return inbox


def value(part):
    if "repeat" in part:
        byte, count = part["repeat"]
        return bytes([byte]) * count
    if "hex" in part:
        return bytes.fromhex(part["hex"])
    return part.get("body", "").encode()


def test_every_case_is_looked_at():
    assert set(CASES) == set(SENT) | set(RECEIVED) | {"log"}  # this worker logs on standard output instead
    assert {name + ".bin" for name in CASES} | {"cases.json"} == set(os.listdir(FOLDER))


def check_hello(inbox, case):
    version, text = inbox.hello
    assert version == wire.VERSION
    assert case.items() <= json.loads(text).items()


def check_load(inbox, case):
    assert json.loads(inbox.load) == case


def check_batch(inbox, case):
    (batch,) = inbox.batches
    assert not batch.missing and not batch.more
    batch.decode(False)
    for item, data, wanted in zip(batch.items, batch.data, case["items"]):
        assert (item.id, item.timeout_ms, item.flags) == (
            wanted["id"],
            wanted["timeout_ms"],
            int(wanted["explain"]),
        )
        assert (item.request_id, item.url_path) == (wanted["request_id"], wanted["url_path"])
        headers = dict(item.headers)
        assert headers.pop("explain") == str(wanted["explain"])
        assert headers.pop("url_path") == wanted["url_path"]
        for part in wanted["parts"]:
            assert data[part["name"]] == value(part)
            if part["content_type"]:
                assert headers.pop(part["name"]) == {"content-type": part["content_type"]}
        assert {name.lower(): text for name, text in headers.items()} == wanted["headers"]
    assert len(batch.items) == len(case["items"])


def check_credit(inbox, case):
    assert inbox.credit == {case["item"]: case["bytes"]}


def check_cancel(inbox, case):
    assert inbox.cancelled == set(case["items"])


def check_describe(inbox, case):
    (batch,) = inbox.batches
    (item,) = batch.items
    assert (item.id, item.request_id, item.headers["describe"]) == (case["item"], case["request_id"], "True")


def check_ping(inbox, case):
    assert [int.from_bytes(token, "little") for token in inbox.pings] == [case["token"]]


def check_drain(inbox, case):
    assert inbox.draining


RECEIVED = {
    "hello": check_hello,
    "load": check_load,
    "batch": check_batch,
    "credit": check_credit,
    "cancel": check_cancel,
    "describe": check_describe,
    "ping": check_ping,
    "drain": check_drain,
    "unknown_then_drain": check_drain,
}


@pytest.mark.parametrize("name", sorted(RECEIVED))
def test_received(name):
    RECEIVED[name](received(name), CASES[name])


HEADERS = wire.encode_headers({"Content-Type": "text/plain", ":reason": "Created"})


def reply(case):
    return b"".join(
        wire.encode_reply(
            case["item"],
            HEADERS,
            value(case),
            250,
            case.get("status", 0 if case["flags"] & wire.REPLY_CANCELLED else 200),
            case["flags"] & ~wire.REPLY_BODIES,
        )
    )


def metric(case):
    (one,) = case["metrics"]
    return b"".join(wire.encode_metrics([tuple(one.values())]))


SENT = {
    "reply": reply,
    "reply_failed": reply,
    "reply_cancelled": reply,
    "reply_large": reply,
    "reply_stream": lambda case: wire.encode_stream_head(case["item"], HEADERS, 250, 200),
    "chunk": lambda case: (
        wire.CHUNK_FRAME.pack(8 + len(case["data"]), wire.CHUNK, 0, 0, case["item"]) + case["data"].encode()
    ),
    "end": lambda case: wire.encode_end(case["item"], 9, 200),
    "end_failed": lambda case: wire.encode_end(
        case["item"], 9, case["status"], wire.END_FAILED, case["message"].encode()
    ),
    "metric": metric,
    "pong": lambda case: wire.encode_frame(wire.PONG, case["token"].to_bytes(8, "little")),
    "bye": lambda case: wire.encode_frame(wire.BYE, case["reason"].encode()),
    # JSON has many spellings: these two are compared as what they say.
    "loaded": None,
    "load_failed": None,
}


@pytest.mark.parametrize("name", sorted(name for name, encode in SENT.items() if encode))
def test_sent(name):
    assert SENT[name](CASES[name]) == raw(name)


@pytest.mark.parametrize("name, kind", [("loaded", wire.LOADED), ("load_failed", wire.LOAD_FAILED)])
def test_sent_json(name, kind):
    golden = raw(name)
    length, found, flags, reserved = wire.FRAME.unpack_from(golden)
    assert (length, found, flags, reserved) == (len(golden) - 8, kind, 0, 0)
    assert CASES[name].items() <= json.loads(golden[8:]).items()
    assert wire.encode_frame(kind, golden[8:]) == golden
