"""What the worker will send: pieces of frames, kept until they are flushed in one write.

The outbox decides nothing: the loop says when to flush.
"""

from threading import Lock

from zoo_handler import wire

_MAX_MESSAGE = 16 * 1024


class Outbox:
    """Pieces on their way to the link."""

    def __init__(self, link):
        self._link = link
        self.pieces = []
        self.size = 0
        # A handler may stream from a thread of its own while the main thread writes.
        self._writing = Lock()

    def add(self, pieces):
        """Keeps pieces that belong together."""
        self.pieces += pieces
        self.size += sum(map(len, pieces))

    def flush(self):
        """Writes all that is kept."""
        with self._writing:
            pieces = self.pieces
            if pieces:
                size = self.size
                self.pieces = []
                self.size = 0
                self._link.send(pieces, size)

    def frame(self, kind, payload):
        """Keeps one small frame."""
        self.add([wire.encode_frame(kind, payload)])

    def fail(self, item, handler_us, code, message):
        """Keeps the failure of one item."""
        self.add(wire.encode_reply(item, b"", cut(message), handler_us, sound_code(code), wire.REPLY_FAILED))

    def cancelled(self, item):
        """Keeps the word that an item was dropped."""
        self.add(wire.encode_reply(item, b"", b"", 0, 0, wire.REPLY_CANCELLED))


def cut(message):
    """A message for the wire: text of a bounded length."""
    return str(message).encode("utf-8", "replace")[:_MAX_MESSAGE]


def sound_code(code):
    """A status code that HTTP can carry: 500 for one that it can't."""
    return code if 100 <= code <= 999 else 500
