"""Puts the answers of one batch into the outbox: each item has its own outcome.

Shared by synchronous and asynchronous handlers. What streams is handed back to the caller.
"""

import logging

from zoo_handler import wire
from zoo_handler.answer import encode_body, encode_meta, failure_of
from zoo_handler.errors import AnswerError


class Replies:
    """The way from a handler's list to the outbox."""

    def __init__(self, outbox, max_response=0):
        self._outbox = outbox
        self._max_response = max_response or float("inf")
        self._max_plain = min(self._max_response, wire.INLINE_UP_TO)

    def send(self, items, answers, context, spent, _pack=wire.REPLY_FRAME.pack, _kind=wire.REPLY):
        """Answers a list of the right length; plain text and bytes go the short way.

        Returns ``{index: iterator}`` of the elements that stream, or None.
        """
        outbox = self._outbox
        processors = context._request_processor
        max_plain = self._max_plain
        streams = None
        for index, answer in enumerate(answers):
            kind = type(answer)
            if processors is None and (kind is bytes or kind is str):
                body = answer if kind is bytes else answer.encode("utf-8", "replace")
                size = len(body)
                if size <= max_plain:
                    head = _pack(32 + size, _kind, 0, 0, items[index].id, size, 0, spent, 200, 0, 0, 0)
                    outbox.pieces += (head, body)
                    outbox.size += 40 + size
                    continue
            if isinstance(answer, BaseException):
                outbox.fail(items[index].id, spent, *failure_of(answer))
            elif hasattr(kind, "__next__") or hasattr(kind, "__anext__"):
                streams = streams or {}
                streams[index] = answer
            else:
                self._send_one(items[index].id, answer, processors, index, spent)
        return streams

    def _send_one(self, item, answer, processors, index, spent):
        try:
            body = encode_body(answer)
            if len(body) > self._max_response:
                text = "The response of {} bytes is larger than max_response_size ({})"
                raise AnswerError(500, text.format(len(body), self._max_response))
            if processors is not None and index < len(processors):
                status, headers = encode_meta(processors[index])
            else:
                status, headers = 200, b""
        except Exception as cause:  # a tensor that can't be saved raises anything
            self._outbox.fail(item, spent, *failure_of(cause))
            return
        self._outbox.add(wire.encode_reply(item, headers, body, spent, status))

    def fail(self, items, failure, spent):
        """Answers all items with one failure."""
        for item in items:
            self._outbox.fail(item.id, spent, *failure)

    def cancelled(self, batch, ids):
        """Drops the items of these ids from a batch that hasn't begun, and returns the rest."""
        if ids.isdisjoint([item.id for item in batch.items]):
            return batch
        for item in batch.items:
            if item.id in ids:
                self._outbox.cancelled(item.id)
        return batch.without(ids)

    def metrics(self, metrics):
        """What the handler has reported, in front of the answers of its batch.

        Metrics never fail a request.
        """
        try:
            frames = wire.encode_metrics(metrics.take())
        except Exception:
            logging.exception("The metrics of a batch can't be sent")
            return
        if frames:
            self._outbox.add(frames)


def mismatch(answers, items, context):
    """The failure of a batch whose handler returned no list of the right length, else None."""
    if not isinstance(answers, list):
        logging.warning("model: %s, Invalid return type: %s.", context.model_name, type(answers))
        return 503, "Invalid model predict output"
    if len(answers) != len(items):
        text = "model: %s, number of batch response mismatched, expect: %d, got: %d."
        logging.warning(text, context.model_name, len(items), len(answers))
        return 503, "number of batch response mismatched"
    return None
