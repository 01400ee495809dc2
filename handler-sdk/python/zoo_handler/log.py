"""Standard output and the root logger of a worker.

The server reads both line by line into the model's log.
"""

import logging
import sys


def set_up():
    """Lines as TorchServe's workers write them: the bare message, from INFO up, on standard output."""
    for stream in (sys.stdout, sys.stderr):
        # Each line leaves at once, so that a crash loses none; and no character that a handler prints is an
        # error.
        stream.reconfigure(line_buffering=True, errors="backslashreplace")
    logging.basicConfig(stream=sys.stdout, format="%(message)s", level=logging.INFO)


def flush():
    """Writes what is half a line. Never raises: the reader may be gone."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):  # a closed pipe, a closed or replaced stream
            continue
