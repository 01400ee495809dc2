"""The entry point of the `torchserve` command: hands over to the server's binary, arguments unchanged."""

import os
import sys

from ts.launcher import server_command


def start() -> None:
    """Becomes the server."""
    program, name = server_command()
    os.execv(program, [name] + sys.argv[1:])


if __name__ == "__main__":
    start()
