"""From what a handler returned or raised to what goes on the wire. This module sends nothing."""

import json
import logging
import sys

from zoo_handler import wire
from zoo_handler.errors import AnswerError, PredictionException


def encode_body(value):
    """The bytes of one element of the handler's list.

    A bytearray is copied: the answer may wait a moment to be sent, and the handler may go on using its
    buffer.
    """
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode("utf-8", "replace")
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)
    # Only if the handler has imported it: a value can't be a tensor otherwise.
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, getattr(torch, "Tensor", ())):
        return _saved_tensor(torch, value)
    try:
        return json.dumps(value, indent=2).encode()
    except (TypeError, ValueError, RecursionError):
        logging.warning("Unable to serialize model output.", exc_info=True)
        raise AnswerError(503, "Unsupported model output data type.") from None


def _saved_tensor(torch, value):
    from io import BytesIO

    out = BytesIO()
    torch.save(value, out)
    return out.getvalue()


def encode_meta(processor):
    """``(status, header block)`` of one answer, from what the handler has set in its request processor."""
    status = processor.get_response_status_code()
    if not isinstance(status, int) or not 100 <= status <= 999:
        raise AnswerError(500, "The handler set a response status that is none: {!r}".format(status))
    headers = processor.get_response_headers()
    reason = processor.get_response_status_phrase()
    if reason:
        headers = dict(headers)
        headers[":reason"] = reason
    if not headers:
        return status, b""
    try:
        block = wire.encode_headers(headers)
    except ValueError as cause:
        raise AnswerError(
            500, "The handler set a response header that can't be sent: {}".format(cause)
        ) from None
    if len(block) > wire.MAX_PAYLOAD - wire.REPLY_HEAD_SIZE:
        raise AnswerError(500, "The response headers of {} bytes are too large".format(len(block)))
    return status, block


def failure_of(cause):
    """``(code, message)`` for an exception of the handler, as TorchServe maps them. Logs it."""
    trace = (type(cause), cause, cause.__traceback__)
    if isinstance(cause, AnswerError):
        return cause.code, cause.message
    if isinstance(cause, MemoryError):
        logging.error("System out of memory", exc_info=trace)
        return 507, "Out of resources"
    if isinstance(cause, PredictionException):
        # A traceback tells nothing about an error that a request is to blame for.
        logging.error(
            "Prediction error: %s", cause.message, exc_info=None if hasattr(cause, "request") else trace
        )
        return _code(cause.error_code), cause.message
    if "CUDA" in str(cause):
        logging.error("CUDA out of memory", exc_info=trace)
        return 507, "Out of resources"
    logging.error("Invoking custom service failed.", exc_info=trace)
    return 503, "Prediction failed"


def _code(value):
    try:
        return int(value)
    except (TypeError, ValueError):
        return 500
