"""What the server has sent and the worker hasn't done yet: batches, cancels, credit, the wish to stop.

The inbox takes frames from the link and keeps the worker's view of them. It never sends anything but a Pong.
"""

import os
from collections import deque
from threading import Lock

from zoo_handler import wire
from zoo_handler.errors import ProtocolError
from zoo_handler.item import Batch


class Inbox:
    """Receiver of a Link.

    ``batches`` are in the order in which they must begin, each once it is complete.
    """

    def __init__(self):
        self.batches = deque()
        self.draining = False
        self.hello = None  # ((major, minor), JSON text)
        self.load = None  # JSON text
        self.cancelled = set()  # ids of items that are on hand, begun or not
        self.credit = {}  # item id -> bytes that its stream may still send
        self.pings = []  # tokens to answer
        self.max_body = float("inf")  # bytes of an item that may be declared to follow: the largest request
        self._bodies = {}  # (item id, part number) -> Body
        self._open = None  # the batch whose last frame hasn't come
        self._received = 0  # the highest item id so far
        self._finished = 0  # all items up to this id are answered (synchronous handlers only)
        self._link = None
        # Held for each read: a handler's threads may ask is_cancelled() while the main thread is in the
        # handler.
        self._reading = Lock()

    def attach(self, link):
        """Says where to read from."""
        self._link = link
        os.register_at_fork(after_in_child=self._after_fork)

    def receive(self, wait):
        """Takes what is readable; with ``wait``, at least something."""
        with self._reading:
            self._link.receive(wait)

    def poll(self):
        """Takes what is readable, unless another thread is at it."""
        if not self._link.forked and self._reading.acquire(False):
            try:
                self._link.receive(False)
            finally:
                self._reading.release()

    def _after_fork(self):
        self._reading = Lock()  # the thread that held the old one may not exist in the child

    def finish(self, last):
        """Forgets what was said about items up to this id: they are answered."""
        self._finished = last
        if self.cancelled:
            self.cancelled = {identity for identity in self.cancelled if identity > last}

    def on_frame(self, kind, flags, payload):
        """One frame from the link."""
        if kind == wire.BATCH:
            batch = self._open or Batch()
            wire.decode_batch(payload, batch, self._bodies, self.max_body)
            if self._open is None:
                self.batches.append(batch)
            batch.more = bool(flags & wire.BATCH_MORE)
            self._open = batch if batch.more else None
            if batch.items:
                self._received = batch.items[-1].id
        elif kind == wire.CANCEL:
            for identity in wire.decode_cancel(payload):
                if self._finished < identity <= self._received:
                    self.cancelled.add(identity)
        elif kind == wire.CREDIT:
            item, size = wire.decode_credit(payload)
            if item in self.credit:
                self.credit[item] += size
        elif kind == wire.DESCRIBE:
            batch = wire.decode_describe(payload)
            self.batches.append(batch)
            self._received = batch.items[-1].id
        elif kind == wire.PING:
            self.pings.append(payload)
        elif kind == wire.DRAIN:
            self.draining = True
        elif kind == wire.HELLO:
            self.hello = wire.decode_hello(payload)
        elif kind == wire.LOAD:
            self.load = payload
        # Kinds that aren't known come from a newer server of the same major version: skipped.

    def open_body(self, item, part, offset, size):
        """Where the next ``size`` bytes of a part go."""
        body = self._bodies.get((item, part))
        if body is None:
            raise ProtocolError("Body for part {} of item {}, which expects none".format(part, item))
        if offset != body.filled or offset + size > len(body.room):
            raise ProtocolError(
                "Body for part {} of item {} at {} with {} bytes; {} of {} are there".format(
                    part, item, offset, size, body.filled, len(body.room)
                )
            )
        return memoryview(body.room)[offset : offset + size]

    def close_body(self, item, part, size):
        """The bytes of the last ``open_body`` are there."""
        body = self._bodies[item, part]
        body.filled += size
        body.batch.missing -= size
        if body.filled == len(body.room):
            del self._bodies[item, part]
