"""The worker's end of the link: the socket, the receive buffer, and nothing of what the frames mean.

All reads of the worker are here. Bodies are received in place: straight into the bytearray that the handler
gets.
"""

import os
import socket

from zoo_handler.errors import LinkClosed, ProtocolError
from zoo_handler.wire import BODY, BODY_HEAD, FRAME, MAX_PAYLOAD

_DONT_WAIT = socket.MSG_DONTWAIT
_BODY_START = FRAME.size + BODY_HEAD.size

# Small enough that an idle worker is small, large enough that a window of small batches comes in one read.
_BUFFER = 64 * 1024

# Up to here, joining pieces is cheaper than handing over a list of them.
_JOIN = 64 * 1024
_MAX_PIECES = 512  # of one sendmsg; the kernel's limit is 1024


def take_standard_input():
    """Moves the link from descriptor 0 to one that no child inherits, and puts /dev/null in its place."""
    end = socket.socket(fileno=os.dup(0))  # dup and all that Python opens are close-on-exec
    end.setblocking(True)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0, inheritable=True)
    os.close(null)
    return end


class Link:
    """Reads whole frames from a connected socket and writes pieces to it.

    The receiver gets ``on_frame(kind, flags, payload)`` for each frame except Body; for those it is asked by
    ``open_body(item, part, offset, size)`` where the bytes go, and told by ``close_body(item, part, size)``.
    """

    def __init__(self, end, receiver):
        self._end = end
        self._receiver = receiver
        self._recv_into = end.recv_into
        self._buffer = bytearray(_BUFFER)
        self._view = memoryview(self._buffer)
        self._from = 0  # the bytes between these two are received and not taken
        self._to = 0
        self._sink = None  # what is left to fill of the body that is being received in place
        self._sink_of = None
        self.forked = False
        # A fork in a handler must not leave two processes talking: its child loses the link.
        os.register_at_fork(after_in_child=self._abandon)

    def _abandon(self):
        self.forked = True
        self._end.close()

    def fileno(self):
        """The descriptor, for those who wait for it themselves."""
        return self._end.fileno()

    def close(self):
        """Closes this end."""
        self._end.close()

    def receive(self, wait):
        """Takes all that is readable and hands over each frame that is complete.

        With ``wait`` it sleeps until there is something, otherwise it returns at once.
        """
        flags = 0 if wait else _DONT_WAIT
        while True:
            try:
                if self._sink is not None:
                    space = len(self._sink)
                    size = self._recv_into(self._sink, 0, flags)
                else:
                    to = self._to
                    view = self._view[to:] if to else self._view
                    space = len(view)
                    size = self._recv_into(view, 0, flags)
            except BlockingIOError:
                return
            except OSError as cause:  # reset by the server, or closed because this is a fork
                raise LinkClosed(str(cause)) from None
            if not size:
                raise LinkClosed("the server closed the link")
            if self._sink is not None:
                self._fill(size)
            else:
                self._to += size
                self._take()
            if size < space:
                return
            flags = _DONT_WAIT

    def _take(self, _unpack=FRAME.unpack_from):
        """Hands over the frames that are complete in the buffer."""
        buffer = self._buffer
        view = self._view
        start = self._from
        end = self._to
        on_frame = self._receiver.on_frame
        while end - start >= 8:
            length, kind, flags, _ = _unpack(buffer, start)
            if length > MAX_PAYLOAD:
                raise ProtocolError(
                    "frame of kind {:#x} with {} bytes, at most {}".format(kind, length, MAX_PAYLOAD)
                )
            stop = start + 8 + length
            if kind == BODY:
                if length < BODY_HEAD.size:
                    raise ProtocolError("Body frame of {} bytes is too short".format(length))
                if end - start < _BODY_START:
                    break
                self._open_sink(start, length - BODY_HEAD.size)
                have = min(stop, end)
                body = view[start + _BODY_START : have]
                self._sink[: len(body)] = body
                start = have
                self._fill(len(body))
                if self._sink is not None:
                    break
            elif stop <= end:
                on_frame(kind, flags, view[start + 8 : stop].tobytes())
                start = stop
            else:
                break
        if start == end:
            self._from = self._to = 0
        else:
            self._make_room(start, end)

    def _make_room(self, start, end):
        """Moves the rest to the front, into a larger buffer if its frame needs one.

        The frame is incomplete.
        """
        buffer = self._buffer
        need = _BODY_START
        if end - start >= 8:
            length, kind, _, _ = FRAME.unpack_from(buffer, start)
            if kind != BODY:
                need = 8 + length
        if need > len(buffer):
            self._buffer = bytearray(need + _BUFFER)
            self._buffer[: end - start] = self._view[start:end]
            self._view = memoryview(self._buffer)
        elif start:
            buffer[: end - start] = buffer[start:end]
        self._from = 0
        self._to = end - start

    def _open_sink(self, start, size):
        item, offset, part, _, _ = BODY_HEAD.unpack_from(self._buffer, start + 8)
        self._sink = self._receiver.open_body(item, part, offset, size)
        self._sink_of = (item, part, size)

    def _fill(self, size):
        rest = self._sink[size:]
        if len(rest):
            self._sink = rest
        else:
            self._sink = None
            self._receiver.close_body(*self._sink_of)

    def send(self, pieces, size):
        """Writes these pieces, ``size`` bytes in all, and returns when the kernel has them."""
        try:
            if size <= _JOIN:
                self._end.sendall(b"".join(pieces))
            else:
                self._send_pieces([memoryview(piece) for piece in pieces if len(piece)])
        except OSError as cause:
            raise LinkClosed(str(cause)) from None

    def _send_pieces(self, pieces):
        first = 0
        while first < len(pieces):
            sent = self._end.sendmsg(pieces[first : first + _MAX_PIECES])
            while first < len(pieces) and sent >= len(pieces[first]):
                sent -= len(pieces[first])
                first += 1
            if sent:
                pieces[first] = pieces[first][sent:]
