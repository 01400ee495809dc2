"""The frames that TorchServe's frontend and its workers exchange: big-endian, each field with its length
before it.
"""

import json
import logging
import os
import struct
from typing import Any, Dict, List, Tuple

from ts.utils.util import deprecated
from zoo_handler.answer import encode_body
from zoo_handler.errors import AnswerError
from zoo_handler.stream import send_intermediate_predict_response as _send_intermediate

LOAD_MSG = b"L"
PREDICT_MSG = b"I"

_INT = struct.Struct("!i")
_END = _INT.pack(-1)

logger = logging.getLogger(__name__)


def retrieve_msg(conn: Any) -> Tuple[bytes, Any]:
    """Reads one request of the frontend: `(b"L", what to load)` or `(b"I", requests of a batch)`."""
    command = _read(conn, 1)
    if command == LOAD_MSG:
        return command, _read_load(conn)
    if command == PREDICT_MSG:
        return command, _read_batch(conn)
    raise ValueError("Invalid command: {!r}".format(bytes(command)))


def create_load_model_response(code: int, message: str) -> bytearray:
    """The answer to a load."""
    return bytearray(_INT.pack(code) + _field(message) + _END)


def create_predict_response(
    ret: Any,
    req_id_map: Dict[int, str],
    message: str,
    code: int,
    context: Any = None,
    ts_stream_next: bool = False,
) -> bytearray:
    """The answers of a batch. If `code` isn't 200, `ret` is not looked at, or is the text that all answers
    get.
    """
    frame = bytearray(_INT.pack(code) + _field(message))
    for index, request_id in req_id_map.items():
        if context is not None and code == 200:
            _mark_stream(context, index, ret, ts_stream_next)
        frame += _field(request_id)
        frame += _meta(context, index, code)
        frame += _field(_body(ret, index, code))
    return frame + _END


def encode_response_headers(resp_hdr_map: Dict[str, str]) -> bytes:
    """How many headers, then names and values."""
    fields = [_field(text) for pair in resp_hdr_map.items() for text in pair]
    return _INT.pack(len(resp_hdr_map)) + b"".join(fields)


@deprecated(version="1.0.0", replacement="ts.handler_utils.utils.send_intermediate_predict_response")
def send_intermediate_predict_response(
    ret: Any, req_id_map: Dict[int, str], message: str, code: int, context: Any = None
) -> None:
    """Sends one chunk to each request of the batch."""
    _send_intermediate(ret, req_id_map, message, code, context)


def _field(value: Any) -> bytes:
    data = value.encode("utf-8") if isinstance(value, str) else bytes(value)
    return _INT.pack(len(data)) + data


def _mark_stream(context: Any, index: int, ret: Any, ts_stream_next: bool) -> None:
    """Says in a header whether another frame follows for this request."""
    if context.stopping_criteria:
        done = context.stopping_criteria[index](ret[index])
        context.set_response_header(index, "ts_stream_next", "false" if done else "true")
    elif ts_stream_next:
        context.set_response_header(index, "ts_stream_next", "true")
    elif context.get_response_headers(index).get("ts_stream_next") == "true":
        context.set_response_header(index, "ts_stream_next", "false")


def _meta(context: Any, index: int, code: int) -> bytes:
    """Content type, status, reason phrase and headers of one answer."""
    if context is None:
        return _field("") + _INT.pack(code) + _field("") + encode_response_headers({})
    status, phrase = context.get_response_status(index)
    return (
        _field(context.get_response_content_type(index) or "")
        + _INT.pack(code if status is None else status)
        + _field(phrase or "")
        + encode_response_headers(context.get_response_headers(index))
    )


def _body(ret: Any, index: int, code: int) -> bytes:
    if code != 200:
        return ret.encode("utf-8") if isinstance(ret, str) else b"error"
    try:
        return encode_body(ret[index])
    except AnswerError as cause:
        return cause.message.encode("utf-8")


# Reading. A socket may give less than it was asked for; its end in the middle of a message is an error.


def _read(conn: Any, size: int) -> bytearray:
    data = bytearray(size)
    view = memoryview(data)
    got = 0
    while got < size:
        count = conn.recv_into(view[got:], size - got)
        if not count:
            raise OSError("Frontend disconnected.")
        got += count
    return data


def _read_int(conn: Any) -> int:
    return _INT.unpack(_read(conn, 4))[0]


def _read_field(conn: Any) -> bytearray:
    return _read(conn, _read_int(conn))


def _read_load(conn: Any) -> Dict[str, Any]:
    message: Dict[str, Any] = {
        "modelName": bytes(_read_field(conn)),
        "modelPath": bytes(_read_field(conn)),
        "batchSize": _read_int(conn),
        "handler": bytes(_read_field(conn)),
    }
    gpu = _read_int(conn)
    message["gpu"] = gpu if gpu >= 0 else None
    message["envelope"] = bytes(_read_field(conn)) or None
    message["limitMaxImagePixels"] = bool(_read(conn, 1)[0])
    return message


def _read_batch(conn: Any) -> List[Dict[str, Any]]:
    requests = []
    while True:
        length = _read_int(conn)
        if length == -1:
            return requests
        request = {"requestId": bytes(_read(conn, length)), "headers": [], "parameters": []}
        while (length := _read_int(conn)) != -1:
            request["headers"].append({"name": bytes(_read(conn, length)), "value": bytes(_read_field(conn))})
        while (length := _read_int(conn)) != -1:
            request["parameters"].append(_read_parameter(conn, length))
        requests.append(request)


def _read_parameter(conn: Any, name_length: int) -> Dict[str, Any]:
    name = _read(conn, name_length).decode("utf-8")
    content_type = _read_field(conn).decode("utf-8")
    return {"name": name, "contentType": content_type, "value": _decode(_read_field(conn), content_type)}


def _decode(value: bytearray, content_type: str) -> Any:
    if os.environ.get("TS_DECODE_INPUT_REQUEST", "true") != "true":
        return value
    try:
        if content_type == "application/json":
            return json.loads(value.decode("utf-8"))
        if content_type.startswith("text"):
            return value.decode("utf-8")
    except ValueError:
        logger.warning("a parameter of type %s can't be decoded, the handler gets its bytes", content_type)
    return value


__all__ = [
    "create_load_model_response",
    "create_predict_response",
    "encode_response_headers",
    "retrieve_msg",
    "send_intermediate_predict_response",
]
