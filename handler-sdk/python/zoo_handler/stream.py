"""Answers in chunks: under credit, ended by a Cancel, each item at its own pace.

A chunk that the server hasn't asked for waits here, and so does whoever makes the next one.
"""

import logging
import os
from time import perf_counter

from zoo_handler import wire
from zoo_handler.answer import encode_body, encode_meta, failure_of
from zoo_handler.errors import AnswerError
from zoo_handler.outbox import cut, sound_code

CANCELLED = 499


class Stream:
    """The streaming answer of one item.

    Its head is sent with the first chunk, so that an error before it is whole.
    """

    def __init__(self, item, index, context, inbox, outbox, started):
        self._item = item.id
        self._index = index
        self._context = context
        self._inbox = inbox
        self._outbox = outbox
        self._started = started
        self._pending = []  # memoryviews that wait for credit
        self._open = False
        self.ended = False

    def is_cancelled(self):
        """Whether the client has left."""
        return self._item in self._inbox.cancelled

    def take(self, value):
        """Takes the next chunk; ``push`` sends it.

        An answer that can't be encoded ends this stream: False.
        """
        if self.ended:
            return False
        try:
            body = encode_body(value)
            if not self._open:
                self._send_head()
        except Exception as cause:
            self.end(failure_of(cause))
            return False
        if len(body):
            self._pending.append(memoryview(body))
        return True

    def _send_head(self):
        status, headers = encode_meta(self._context.request_processor[self._index])
        if self._context._marks_streams:
            headers += wire.encode_headers({"ts_stream_next": "true"})
        self._inbox.credit[self._item] = wire.MAX_CREDIT
        self._outbox.add([wire.encode_stream_head(self._item, headers, self._spent(), status)])
        self._open = True

    def push(self):
        """Sends as much as there is credit for. True if nothing is left."""
        credit = self._inbox.credit
        while self._pending:
            if self.is_cancelled():
                self._pending.clear()
                break
            room = credit[self._item]
            if not room:
                return False
            chunk = self._pending[0]
            piece = chunk[:room]
            credit[self._item] = room - len(piece)
            head = wire.CHUNK_FRAME.pack(8 + len(piece), wire.CHUNK, 0, 0, self._item)
            self._outbox.add([head, piece])
            if len(piece) == len(chunk):
                del self._pending[0]
            else:
                self._pending[0] = chunk[len(piece) :]
        return True

    def end(self, failure=None):
        """Says the last word: ``failure`` is ``(code, message)``, or None if all went well."""
        if self.ended:
            return
        self.ended = True
        self._pending.clear()
        if failure is None and not self._open:
            try:
                self._send_head()
            except AnswerError as cause:
                failure = failure_of(cause)
        if not self._open:
            self._outbox.fail(self._item, self._spent(), *failure)
            return
        del self._inbox.credit[self._item]
        if failure is None:
            self._outbox.add([wire.encode_end(self._item, self._spent(), 200)])
        else:
            code, message = failure
            code = sound_code(code)
            self._outbox.add(
                [wire.encode_end(self._item, self._spent(), code, wire.END_FAILED, cut(message))]
            )

    def _spent(self):
        return min(int((perf_counter() - self._started) * 1e6), 0xFFFFFFFF)


class Streams:
    """The streams of one batch of a synchronous handler, by index."""

    def __init__(self, items, context, inbox, outbox, started):
        self._inbox = inbox
        self._outbox = outbox
        self._all = [Stream(item, index, context, inbox, outbox, started) for index, item in enumerate(items)]

    def __getitem__(self, index):
        return self._all[index]

    def write(self, values):
        """Takes one chunk for each stream; None is no chunk."""
        for stream, value in zip(self._all, values):
            if value is not None:
                stream.take(value)

    def push(self):
        """Sends as much as there is credit for. True if nothing is left."""
        return all([stream.push() for stream in self._all])

    def are_cancelled(self):
        """Whether nobody waits for any of them."""
        return all([stream.is_cancelled() for stream in self._all])

    def settle(self):
        """Sends what is pending, waiting for credit."""
        while True:
            done = self.push()
            self._outbox.flush()
            if done:
                return
            self._inbox.receive(True)

    def finish(self, values):
        """Takes the last chunks and ends all streams."""
        self.write(values)
        self.settle()
        self.end()

    def end(self, failure=None):
        """Ends all streams that haven't ended."""
        for stream in self._all:
            if failure is None and stream.is_cancelled():
                stream.end((CANCELLED, "Cancelled"))
            else:
                stream.end(failure)

    def run_lockstep(self, generator):
        """Streams a generator that yields what a handler returns: a list with one element for each request.

        For a single request it may yield the element itself. None is no chunk.
        """
        while True:
            self._inbox.poll()
            if self.are_cancelled():
                _close(generator)
                break
            try:
                values = as_list(next(generator), len(self._all))
            except StopIteration:
                break
            except Exception as cause:
                _close(generator)
                self.end(failure_of(cause))
                break
            self.write(values)
            self.settle()
        self.end()
        self._outbox.flush()

    def run_each(self, generators):
        """Streams ``{index: iterator}``, taking turns.

        One without credit is passed over, so it delays no other.
        """
        while generators:
            moved = False
            for index in list(generators):
                stream = self._all[index]
                if not stream.push():
                    continue
                moved = True
                self._inbox.poll()
                if stream.is_cancelled():
                    _close(generators.pop(index))
                    stream.end((CANCELLED, "Cancelled"))
                    continue
                try:
                    value = next(generators[index])
                except StopIteration:
                    del generators[index]
                    stream.end()
                except Exception as cause:
                    del generators[index]
                    stream.end(failure_of(cause))
                else:
                    if value is not None and not stream.take(value):
                        _close(generators.pop(index))
                    else:
                        stream.push()
                self._outbox.flush()
            if generators and not moved:
                self._outbox.flush()
                self._inbox.receive(True)
        self._outbox.flush()


def as_list(values, count):
    """What a generator that stands for a batch has yielded, as a list with one element for each request."""
    if type(values) is not list and count == 1:
        return [values]
    if type(values) is not list or len(values) != count:
        logging.warning("A handler's generator must yield lists of %d elements", count)
        raise AnswerError(503, "number of batch response mismatched")
    return values


def _close(iterator):
    """Lets a generator clean up. What it raises then concerns nobody but the log."""
    close = getattr(iterator, "close", None)
    if close is not None:
        try:
            close()
        except Exception:
            logging.exception("A cancelled stream failed to close")


def send_intermediate_predict_response(ret, req_id_map, message, code, context=None):
    """Sends one chunk to each request of the batch; what the handler returns in the end is the last chunk.

    ``ret`` is a list with one element per request. Of the processes of a parallel model only the first
    answers.
    """
    if os.environ.get("LOCAL_RANK", "0") != "0":
        return
    streamer = getattr(context, "_streamer", None)
    if streamer is None:
        raise RuntimeError(
            "send_intermediate_predict_response needs the context of a request that is being handled"
        )
    streamer(ret, message, code, context)
