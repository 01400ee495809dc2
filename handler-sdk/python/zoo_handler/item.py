"""One request and one batch of them, as they arrived. Texts stay bytes until somebody asks for them.

This module doesn't know frames: ``wire`` fills these types, ``service`` and ``context`` read them.
"""

import json
import logging

from zoo_handler.errors import ProtocolError
from zoo_handler.headers import Headers, decode_headers


class Item:
    """One request: an id on the link, and where its texts lie in the frame that brought it."""

    __slots__ = (
        "id",
        "timeout_ms",
        "flags",
        "describe",
        "_frame",
        "_at",
        "_request_size",
        "_path_size",
        "_header_size",
        "_types",
        "_headers",
    )

    def __init__(
        self, identity, timeout_ms, flags, frame, at, request_size, path_size, header_size, describe=False
    ):
        self.id = identity
        self.timeout_ms = timeout_ms
        self.flags = flags
        self.describe = describe
        self._frame = frame
        self._at = at
        self._request_size = request_size
        self._path_size = path_size
        self._header_size = header_size
        self._types = None
        self._headers = None

    def note_type(self, part, content_type):
        """Remembers what the client said that a part is."""
        if self._types is None:
            self._types = {}
        self._types[part] = content_type

    def content_type(self, part):
        """What the client said that a part is, or an empty string."""
        return self._types.get(part, "") if self._types else ""

    @property
    def request_id(self):
        """The id that the client sees, too."""
        return self._frame[self._at : self._at + self._request_size].decode("utf-8", "replace")

    @property
    def url_path(self):
        """What followed the model's version in the URL."""
        at = self._at + self._request_size
        return self._frame[at : at + self._path_size].decode("utf-8", "replace")

    @property
    def headers(self):
        """The header map, decoded when it is first asked for."""
        headers = self._headers
        if headers is None:
            headers = self._headers = Headers()
            at = self._at + self._request_size + self._path_size
            decode_headers(self._frame, at, at + self._header_size, headers)
            if self.describe:
                headers["describe"] = "True"
            else:
                headers["url_path"] = self.url_path
                headers["explain"] = "True" if self.flags & 1 else "False"
            if self._types:
                for part, content_type in self._types.items():
                    headers[part] = {"content-type": content_type}
        return headers


class Batch:
    """The items of one call of the handler, and ``data``: what the handler gets, one dict for each item."""

    __slots__ = ("items", "data", "late", "explained", "missing", "more")

    def __init__(self):
        self.items = []
        self.data = []
        self.late = {}  # (index, name) -> content type of the values that are made when the batch begins
        self.explained = 0  # how many of the items ask for an explanation
        self.missing = 0  # bytes of bodies that haven't come
        self.more = False  # further items follow in another frame

    def expect(self, bodies, item, number, length):
        """Makes room for a part whose bytes follow in frames of their own."""
        try:
            room = bytearray(length)
        except (MemoryError, OverflowError):
            raise ProtocolError(
                "no memory for part {} of item {}: {} bytes".format(number, item, length)
            ) from None
        if length:
            self.missing += length
            bodies[item, number] = Body(self, room)
        return room

    def decode(self, wanted):
        """Makes the values that depend on the content type, as far as TorchServe makes them."""
        for (index, name), content_type in self.late.items():
            raw = self.data[index][name]
            value = _decode(raw, content_type) if wanted else None
            if value is None:
                value = raw if type(raw) is bytearray else bytearray(raw)
            elif value is _NULL:
                value = None
            self.data[index][name] = value

    def by_kind(self):
        """This batch, or if it is mixed, its predictions and its explanations. The values are decoded already.

        Handlers written for TorchServe look at the first item to see what the whole batch asks for.
        """
        if not 0 < self.explained < len(self.items):
            return [self]
        explained = {item.id for item in self.items if item.flags & 1}
        return [self.without(explained), self.without({item.id for item in self.items} - explained)]

    def without(self, ids):
        """The rest of this batch without the items of these ids. The values are decoded already."""
        rest = Batch()
        for item, values in zip(self.items, self.data):
            if item.id not in ids:
                rest.items.append(item)
                rest.data.append(values)
                rest.explained += item.flags & 1
        return rest


class Body:
    """A part that is being received: the room that the handler will get, and how much of it is filled."""

    __slots__ = ("batch", "room", "filled")

    def __init__(self, batch, room):
        self.batch = batch
        self.room = room
        self.filled = 0


_NULL = object()


def _decode(raw, content_type):
    """The value of a JSON or text part, or None if it isn't what it says."""
    if content_type == "application/json":
        try:
            value = json.loads(raw)
        except (ValueError, RecursionError) as cause:
            logging.warning(
                "A part that says it is application/json can't be parsed, the handler gets its bytes: %s",
                cause,
            )
            return None
        return _NULL if value is None else value
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as cause:
        logging.warning(
            "A part that says it is %s isn't UTF-8, the handler gets its bytes: %s", content_type, cause
        )
        return None
