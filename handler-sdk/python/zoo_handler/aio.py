"""Runs an asynchronous handler: an event loop that reads the link, several batches open, answers in any order.

Batches begin in the order in which they came, each in a task of its own with a Context of its own. Writes are
done in place: the server always reads.
"""

import asyncio
import logging
import threading
from time import perf_counter
from types import GeneratorType

from zoo_handler import wire
from zoo_handler.answer import failure_of
from zoo_handler.errors import LinkError
from zoo_handler.replies import mismatch
from zoo_handler.stream import CANCELLED, Streams, as_list

_MAX_SPENT = 0xFFFFFFFF
_END = object()


def initialize(handler):
    """Initialises a handler, with the event loop that will run it as the current one.

    The loop doesn't run meanwhile, so that ``initialize`` may run it, or start one of its own.
    """
    handler.loop = loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    result = handler.initialize()
    if hasattr(result, "__await__"):
        loop.run_until_complete(_finish(result))


async def _finish(awaitable):
    return await awaitable


class Loop:
    """The batches that are open, and what wakes them."""

    def __init__(self, handler, context, inbox, outbox, replies, decode_input, concurrency, coalesce):
        self._handle = handler.handle
        self._context = context
        self._inbox = inbox
        self._outbox = outbox
        self._replies = replies
        self._decode_input = decode_input
        self._concurrency = concurrency
        self._coalesce = coalesce
        self._running = {}  # task -> ids of its items
        self._begun = 0  # the highest item id that has begun
        self._waiting = set()  # futures of streams without credit
        self._flushing = False  # a flush is on its way
        self._thread = threading.get_ident()
        # None: that the handler is asynchronous came out when it was initialised.
        self._loop = handler.loop or asyncio.new_event_loop()
        self._done = None

    def run(self, link):
        """Serves until the server says Drain and all is answered. Raises LinkError when the link ends."""
        asyncio.set_event_loop(self._loop)  # asyncio.run in initialize leaves none
        self._done = self._loop.create_future()
        self._loop.add_reader(link.fileno(), self._read)
        self._loop.call_soon(self._progress)
        try:
            self._loop.run_until_complete(self._done)
        except SystemExit:
            self._outbox.flush()  # what was answered before a handler called sys.exit
            raise
        self._outbox.flush()

    def _read(self):
        """The link is readable."""
        try:
            self._inbox.poll()
        except LinkError as cause:
            self._stop(cause)
        else:
            self._progress()

    def _stop(self, cause):
        """Ends the loop: the link is of no use any longer, or a batch could not be answered.

        The reader stays: in the child of a fork the loop's selector is shared with the parent.
        """
        if not self._done.done():
            self._done.set_exception(cause)

    def _progress(self):
        """Does what the frames that have come ask for."""
        inbox = self._inbox
        if inbox.pings:
            for token in inbox.pings:
                self._outbox.frame(wire.PONG, token)
            inbox.pings.clear()
            self.flush_soon()
        if inbox.cancelled:
            running = set().union(*self._running.values())
            inbox.cancelled = {item for item in inbox.cancelled if item > self._begun or item in running}
        self._wake()
        batches = inbox.batches
        while (
            batches
            and not batches[0].missing
            and not batches[0].more
            and len(self._running) < self._concurrency
        ):
            self._begin(batches.popleft())
        if inbox.draining and not batches and not self._running and not self._done.done():
            self._done.set_result(None)

    def _wake(self):
        """Lets the streams look again: there may be credit, or a Cancel."""
        waiting, self._waiting = self._waiting, set()
        for future in waiting:
            if not future.done():
                future.set_result(None)

    async def news(self):
        """Until something has come from the server."""
        future = self._loop.create_future()
        self._waiting.add(future)
        await future

    def _begin(self, batch):
        if batch.items:
            self._begun = batch.items[-1].id
        if batch.late:
            batch.decode(self._decode_input)
        for part in batch.by_kind():
            self._begin_part(part)

    def _begin_part(self, batch):
        ids = {item.id for item in batch.items}
        if self._inbox.cancelled:
            batch = self._replies.cancelled(batch, self._inbox.cancelled)
            self._inbox.cancelled -= ids.difference([item.id for item in batch.items])
            self.flush_soon()
        if batch.items:
            task = self._loop.create_task(_Call(self, batch).run())
            self._running[task] = ids
            task.add_done_callback(self._ended)

    def _ended(self, task):
        self._inbox.cancelled -= self._running.pop(task)
        cause = None if task.cancelled() else task.exception()
        if cause is not None:
            self._stop(cause)
        else:
            self._progress()

    def flush_soon(self):
        """Sends what the outbox holds when all that is ready in this turn of the loop is in it."""
        if not self._coalesce:
            self._flush()
        elif not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def poll(self):
        """What ``context.is_cancelled()`` does first: its handler may compute without giving way to the loop."""
        if threading.get_ident() == self._thread:
            self._inbox.poll()
            self._loop.call_soon(self._progress)

    @property
    def cancelled(self):
        """The ids of cancelled items."""
        return self._inbox.cancelled

    def _flush(self):
        self._flushing = False
        try:
            self._outbox.flush()
        except LinkError as cause:
            self._stop(cause)


class _Call:
    """One call of the handler: a batch, its Context, and what becomes of it."""

    def __init__(self, loop, batch):
        self._loop = loop
        self._batch = batch
        self._context = loop._context.for_items(batch.items)
        self._context._inbox = loop
        self._context._streamer = self._send_intermediate
        self._started = 0.0
        self._streams = None
        self._settling = None  # the task that sends what waits for credit

    async def run(self):
        """Calls the handler and answers each item."""
        loop = self._loop
        context = self._context
        items = self._batch.items
        self._started = perf_counter()
        failure = answers = None
        try:
            answers = loop._handle(self._batch.data, context)
            if hasattr(answers, "__await__"):
                answers = await answers
        except (Exception, asyncio.CancelledError) as cause:
            failure = failure_of(cause)
        spent = min(int((perf_counter() - self._started) * 1e6), _MAX_SPENT)
        if context._metrics is not None:
            loop._replies.metrics(context._metrics)
        if failure is None and _is_stream(answers) and self._streams is None:
            await self._run_lockstep(answers)
        elif self._streams is not None:
            await self._finish_streams(answers, failure or mismatch(answers, items, context))
        else:
            failure = failure or mismatch(answers, items, context)
            if failure is not None:
                loop._replies.fail(items, failure, spent)
            else:
                iterators = loop._replies.send(items, answers, context, spent)
                if iterators:
                    self._open_streams()
                    await asyncio.gather(*[self._run_one(index, each) for index, each in iterators.items()])
        loop.flush_soon()

    def _open_streams(self):
        self._streams = Streams(
            self._batch.items, self._context, self._loop._inbox, self._loop._outbox, self._started
        )
        return self._streams

    async def _settle(self, streams):
        """Sends what is pending, waiting for credit. ``streams`` is one or all."""
        while True:
            done = streams.push()
            self._loop.flush_soon()
            if done:
                return
            await self._loop.news()

    async def _run_lockstep(self, iterator):
        """Streams what yields lists with one element for each request."""
        streams = self._open_streams()
        failure = None
        while failure is None:
            if streams.are_cancelled():
                await _close(iterator)
                break
            try:
                values = await _next(iterator)
                if values is _END:
                    break
                streams.write(as_list(values, len(self._batch.items)))
            except (Exception, asyncio.CancelledError) as cause:
                await _close(iterator)
                failure = failure_of(cause)
            await self._settle(streams)
        streams.end(failure)

    async def _run_one(self, index, iterator):
        """Streams one element of the handler's list, at its own pace."""
        stream = self._streams[index]
        while True:
            if stream.is_cancelled():
                await _close(iterator)
                stream.end((CANCELLED, "Cancelled"))
                break
            try:
                value = await _next(iterator)
            except (Exception, asyncio.CancelledError) as cause:
                stream.end(failure_of(cause))
                break
            if value is _END:
                stream.end()
                break
            if value is not None and not stream.take(value):
                await _close(iterator)
                break
            await self._settle(stream)
        self._loop.flush_soon()

    def _send_intermediate(self, ret, message, code, context):
        """One chunk to each item.

        Without credit it waits here, not in the handler, which isn't asked to await.
        """
        loop = self._loop
        if threading.get_ident() != loop._thread:
            loop._loop.call_soon_threadsafe(self._send_intermediate, ret, message, code, context)
            return
        streams = self._streams or self._open_streams()
        if code != 200:
            streams.end((code, message))
            loop.flush_soon()
            return
        streams.write(ret)
        if self._settling is None or self._settling.done():
            if streams.push():
                loop.flush_soon()
            else:
                self._settling = loop._loop.create_task(self._settle(streams))

    async def _finish_streams(self, answers, failure):
        """What the handler returned after intermediate answers is the last chunk of each."""
        if failure is None:
            self._streams.write(answers)
        await self._settle(self._streams)
        if self._settling is not None:
            await self._settling
        self._streams.end(failure)


def _is_stream(answers):
    return hasattr(answers, "__anext__") or type(answers) is GeneratorType


async def _next(iterator):
    """The next element, or ``_END``."""
    if hasattr(iterator, "__anext__"):
        try:
            return await iterator.__anext__()
        except StopAsyncIteration:
            return _END
    await asyncio.sleep(0)  # a plain generator must not keep the others from running
    return next(iterator, _END)


async def _close(iterator):
    """Lets a generator clean up. What it raises then concerns nobody but the log."""
    try:
        if hasattr(iterator, "aclose"):
            await iterator.aclose()
        elif hasattr(iterator, "close"):
            iterator.close()
    except (Exception, asyncio.CancelledError):
        logging.exception("A stream that was broken off failed to close")
