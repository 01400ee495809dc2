"""Runs one batch of a synchronous handler: calls it, checks what comes back, and answers each item.

One failing item never fails its neighbours. This module doesn't decide when answers are flushed, except for streams.
"""

import logging
from time import perf_counter
from types import GeneratorType

from zoo_handler import wire
from zoo_handler.answer import encode_body, encode_meta, failure_of
from zoo_handler.errors import AnswerError
from zoo_handler.stream import Streams


class Service:
    """The handler of one model and what surrounds a call of it."""

    def __init__(self, handler, context, inbox, outbox, decode_input=True, max_response=0):
        self._handle = handler.handle
        self._context = context
        self._inbox = inbox
        self._outbox = outbox
        self._decode_input = decode_input
        self._max_response = max_response or float("inf")
        self._max_plain = min(self._max_response, wire.INLINE_UP_TO)
        self._items = ()
        self._started = 0.0
        self._streams = None
        self.ended = 0.0  # when the last call returned
        context._inbox = inbox
        context._streamer = self._send_intermediate

    def run(self, batch, _clock=perf_counter):
        """Handles one batch. Its answers are in the outbox afterwards, or sent already if they stream."""
        if batch.late:
            batch.decode(self._decode_input)
        if self._inbox.cancelled:
            batch = self._drop_cancelled(batch)
        items = batch.items
        if not items:
            return
        data = batch.data
        context = self._context
        context.begin(items)
        self._items = items
        self._streams = None
        self._started = started = _clock()
        try:
            answers = self._handle(data, context)
            failure = None
        except Exception as cause:
            failure = failure_of(cause)
        self.ended = ended = _clock()
        spent = int((ended - started) * 1e6)
        if context._metrics is not None:
            self._send_metrics(context._metrics)
        if failure is None and type(answers) is list and len(answers) == len(items) and self._streams is None:
            self._answer(items, answers, min(spent, 0xFFFFFFFF))
        else:
            self._answer_rest(items, answers if failure is None else None, failure, spent)
            self.ended = _clock()

    def _drop_cancelled(self, batch):
        cancelled = self._inbox.cancelled
        if cancelled.isdisjoint([item.id for item in batch.items]):
            return batch
        for item in batch.items:
            if item.id in cancelled:
                self._outbox.cancelled(item.id)
        return batch.without(cancelled)

    def _send_metrics(self, metrics):
        """In front of the answers of their batch. Metrics never fail a request."""
        try:
            frames = wire.encode_metrics(metrics.take())
        except Exception:
            logging.exception("The metrics of a batch can't be sent")
            return
        if frames:
            self._outbox.add(frames)

    def _answer(self, items, answers, spent, _pack=wire.REPLY_FRAME.pack):
        """Answers a list of the right length. Plain text and bytes go the short way."""
        outbox = self._outbox
        processors = self._context._request_processor
        max_plain = self._max_plain
        generators = None
        for index, answer in enumerate(answers):
            kind = type(answer)
            if processors is None and (kind is bytes or kind is str):
                body = answer if kind is bytes else answer.encode("utf-8", "replace")
                size = len(body)
                if size <= max_plain:
                    head = _pack(32 + size, 0x12, 0, 0, items[index].id, size, 0, spent, 200, 0, 0, 0)
                    outbox.pieces += (head, body)
                    outbox.size += 40 + size
                    continue
            if isinstance(answer, BaseException):
                outbox.fail(items[index].id, spent, *failure_of(answer))
            elif hasattr(kind, "__next__"):
                generators = generators or {}
                generators[index] = answer
            else:
                self._answer_one(items[index].id, answer, processors, index, spent)
        if generators:
            Streams(items, self._context, self._inbox, outbox, self._started).run_each(generators)

    def _answer_one(self, item, answer, processors, index, spent):
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

    def _answer_rest(self, items, answers, failure, spent):
        """What isn't a list of the right length: failures, generators, and the end of what was streamed already."""
        model = self._context.model_name
        if failure is None and type(answers) is GeneratorType and self._streams is None:
            streams = Streams(items, self._context, self._inbox, self._outbox, self._started)
            streams.run_lockstep(answers)
            self._outbox.flush()
            return
        if failure is None and not isinstance(answers, list):
            logging.warning("model: %s, Invalid return type: %s.", model, type(answers))
            failure = (503, "Invalid model predict output")
        elif failure is None and len(answers) != len(items):
            text = "model: %s, number of batch response mismatched, expect: %d, got: %d."
            logging.warning(text, model, len(items), len(answers))
            failure = (503, "number of batch response mismatched")
        if self._streams is not None:
            if failure is None:
                self._streams.finish(answers)
            else:
                self._streams.end(failure)
            self._outbox.flush()
        elif failure is not None:
            for item in items:
                self._outbox.fail(item.id, min(spent, 0xFFFFFFFF), *failure)
        else:
            self._answer(items, list(answers), min(spent, 0xFFFFFFFF))

    def _send_intermediate(self, ret, message, code, context):
        """One chunk to each item of the current batch, waiting for credit."""
        streams = self._streams
        if streams is None:
            streams = self._streams = Streams(self._items, context, self._inbox, self._outbox, self._started)
        if code != 200:
            streams.end((code, message))
            self._outbox.flush()
            return
        for index in range(len(self._items)):
            streams[index].write(ret[index])
        streams.settle()
