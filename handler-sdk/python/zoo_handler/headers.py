"""The header map that handlers see.

Names travel in lower case; here they look as clients usually write them.
"""

from struct import Struct
from struct import error as StructError

from zoo_handler.errors import ProtocolError

_SHORT = Struct("<H").unpack_from
_LONG = Struct("<I").unpack_from

# Keys that the worker sets itself. They are never looked up as client headers, so that no client can fake
# them.
_OWN = frozenset(("url_path", "explain", "describe"))

_shown = {}
_MAX_KNOWN = 1024


def shown_name(name):
    """``content-type`` as ``Content-Type``.

    Names with an underscore stay as they are: TorchServe's own have them.
    """
    known = _shown.get(name)
    if known is None:
        low = name.lower()
        known = low if "_" in low else "-".join(word.capitalize() for word in low.split("-"))
        if len(_shown) < _MAX_KNOWN:  # bounded, because clients choose the names
            _shown[name] = known
    return known


class Headers(dict):
    """A dict of ``Title-Case`` names whose look-up accepts any case.

    ``url_path``, ``explain``, ``describe`` and the names of parts (``{"content-type": …}``) are exact keys.
    """

    __slots__ = ()

    def __missing__(self, key):
        value = self.get(key, _NOTHING)
        if value is _NOTHING:
            raise KeyError(key)
        return value

    def __contains__(self, key):
        return self.get(key, _NOTHING) is not _NOTHING

    def get(self, key, default=None, _get=dict.get):
        """The value, or ``default`` if there is no such header."""
        value = _get(self, key, _NOTHING)
        if value is not _NOTHING:
            return value
        if key in _OWN or not isinstance(key, str):
            return default
        return _get(self, _shown.get(key) or shown_name(key), default)

    def copy(self):
        """A header map of its own with the same content."""
        return Headers(self)


_NOTHING = object()


def decode_headers(frame, at, end, headers, _short=_SHORT, _long=_LONG, _known=_shown.get):
    """Adds a header block to ``headers``. Of repeated names the last wins."""
    # One decoding of the block whose offsets are those of the bytes, then slices: headers are short and many.
    block = frame[at:end]
    text = block.decode("latin-1")
    at = 0
    end = len(block)
    try:
        while at < end:
            stop = at + 2 + _short(block, at)[0]
            name = text[at + 2 : stop]
            at = stop + 4 + _long(block, stop)[0]
            value = text[stop + 4 : at]
            if not value.isascii():
                value = value.encode("latin-1").decode("utf-8", "replace")
            if not name.isascii():
                name = name.encode("latin-1").decode("utf-8", "replace")
            headers[_known(name) or shown_name(name)] = value
    except StructError:
        at = end + 1
    if at != end:
        raise ProtocolError("a header block doesn't end where its length says")
