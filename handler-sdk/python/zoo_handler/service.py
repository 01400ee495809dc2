"""Runs one batch of a synchronous handler: calls it and sees that each item is answered.

This module doesn't decide when answers are flushed, except for streams.
"""

from time import perf_counter
from types import GeneratorType

from zoo_handler.answer import failure_of
from zoo_handler.replies import mismatch
from zoo_handler.stream import Streams

_MAX_SPENT = 0xFFFFFFFF


class Service:
    """The handler of one model and what surrounds a call of it."""

    def __init__(self, handler, context, inbox, outbox, replies, decode_input=True):
        self._handle = handler.handle
        self._context = context
        self._inbox = inbox
        self._outbox = outbox
        self._replies = replies
        self._decode_input = decode_input
        self._items = ()
        self._started = 0.0
        self._streams = None  # of the current batch, once the handler has sent an intermediate answer
        context._inbox = inbox
        context._streamer = self._send_intermediate

    def run(self, batch, _clock=perf_counter):
        """Handles one batch. Its answers are in the outbox afterwards, or sent already if they stream."""
        if batch.late:
            batch.decode(self._decode_input)
        if 0 < batch.explained < len(batch.items):
            for part in batch.by_kind():
                self.run(part)
            return
        replies = self._replies
        if self._inbox.cancelled:
            batch = replies.cancelled(batch, self._inbox.cancelled)
        items = batch.items
        if not items:
            return
        context = self._context
        context.begin(items)
        self._items = items
        self._streams = None
        self._started = started = _clock()
        failure = answers = None
        try:
            answers = self._handle(batch.data, context)
        except Exception as cause:
            failure = failure_of(cause)
        spent = min(int((_clock() - started) * 1e6), _MAX_SPENT)
        if context._metrics is not None:
            replies.metrics(context._metrics)
        if failure is None and not (type(answers) is list and len(answers) == len(items)):
            if type(answers) is GeneratorType and self._streams is None:
                self._open_streams().run_lockstep(answers)
                return
            failure = mismatch(answers, items, context)
        if self._streams is not None:
            self._finish_streams(answers, failure)
        elif failure is not None:
            replies.fail(items, failure, spent)
        else:
            generators = replies.send(items, answers, context, spent)
            if generators:
                self._open_streams().run_each(generators)

    def _open_streams(self):
        return Streams(self._items, self._context, self._inbox, self._outbox, self._started)

    def _finish_streams(self, answers, failure):
        """What the handler returned after intermediate answers is the last chunk of each."""
        if failure is None:
            self._streams.finish(answers)
        else:
            self._streams.end(failure)
        self._outbox.flush()

    def _send_intermediate(self, ret, message, code, context):
        """One chunk to each item of the current batch, waiting for credit."""
        if self._streams is None:
            self._streams = self._open_streams()
        if code != 200:
            self._streams.end((code, message))
            self._outbox.flush()
        else:
            self._streams.write(ret)
            self._streams.settle()
