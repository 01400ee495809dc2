"""A stand-in for `zoo-archiver`: records how it was called, and says and does what a test wants."""

import json
import os
import stat
import sys
import tempfile
import unittest
from pathlib import Path
from typing import Any, Dict, List, Optional
from unittest import mock

_SOURCE = """#!{python}
import json, os, sys
here = os.path.dirname(os.path.abspath(__file__))
manifest = next((word[len("--manifest="):] for word in sys.argv if word.startswith("--manifest=")), None)
with open(os.path.join(here, "call.json"), "w") as file:
    json.dump({{
        "arguments": sys.argv[1:],
        "directory": os.getcwd(),
        "manifest": open(manifest, encoding="utf-8").read() if manifest else None,
    }}, file)
sys.stderr.write({stderr!r})
sys.exit({status})
"""


class FakeProgram:
    """An executable file."""

    def __init__(self, directory: Path, stderr: str = "", status: int = 0) -> None:
        self.path = directory / "fake-archiver"
        self._call = directory / "call.json"
        source = _SOURCE.format(python=sys.executable, stderr=stderr, status=status)
        self.path.write_text(source, encoding="utf-8")
        self.path.chmod(stat.S_IRWXU)

    @property
    def call(self) -> Dict[str, Any]:
        """How it was called; an error if it wasn't."""
        return json.loads(self._call.read_text(encoding="utf-8"))

    @property
    def arguments(self) -> List[str]:
        return self.call["arguments"]


class ProgramTest(unittest.TestCase):
    """A test in a folder of its own, with a stand-in for the program."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(os.path.realpath(folder.name))

    def program(self, stderr: str = "", status: int = 0) -> FakeProgram:
        """Make the stand-in, and let the package find it."""
        program = FakeProgram(self.folder, stderr, status)
        self.environment(ZOO_ARCHIVER=str(program.path))
        return program

    def environment(self, **values: Optional[str]) -> None:
        """Set environment variables, or unset those that are None, until the test ends."""
        patch = mock.patch.dict(
            os.environ, {name: value for name, value in values.items() if value is not None}
        )
        patch.start()
        self.addCleanup(patch.stop)
        for name in [name for name, value in values.items() if value is None]:
            os.environ.pop(name, None)
