"""The header map that handlers see. Names travel in lower case; here they look as clients usually write them."""

from struct import Struct, error as StructError

from zoo_handler.errors import ProtocolError

_SHORT = Struct("<H").unpack_from
_LONG = Struct("<I").unpack_from

# Keys that the worker sets itself. They are never looked up as client headers, so that no client can fake them.
_OWN = frozenset(("url_path", "explain", "describe"))

_shown = {}
_MAX_KNOWN = 1024


def shown_name(name):
    """``content-type`` as ``Content-Type``. Names with an underscore stay as they are: TorchServe's own have them."""
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
        if isinstance(key, str) and key not in _OWN:
            shown = shown_name(key)
            if dict.__contains__(self, shown):
                return dict.__getitem__(self, shown)
        raise KeyError(key)

    def __contains__(self, key):
        if dict.__contains__(self, key):
            return True
        return isinstance(key, str) and key not in _OWN and dict.__contains__(self, shown_name(key))

    def get(self, key, default=None):
        """The value, or ``default`` if there is no such header."""
        try:
            return self[key]
        except KeyError:
            return default

    def copy(self):
        """A header map of its own with the same content."""
        return Headers(self)


def decode_headers(frame, at, end, headers):
    """Adds a header block to ``headers``. Of repeated names the last wins."""
    try:
        while at < end:
            size = _SHORT(frame, at)[0]
            at += 2
            name = frame[at : at + size].decode("utf-8", "replace")
            at += size
            size = _LONG(frame, at)[0]
            at += 4
            headers[shown_name(name)] = frame[at : at + size].decode("utf-8", "replace")
            at += size
    except StructError:
        at = end + 1
    if at != end:
        raise ProtocolError("a header block doesn't end where its length says")
