"""The `zoo-archiver` program: where it is, and how what it says becomes Python.

Doesn't know what the arguments mean.
"""

import ast
import logging
import os
import re
import shutil
import subprocess
import sys
from typing import List, NoReturn, Optional

from .model_archiver_error import ModelArchiverError

_NAME = "zoo-archiver.exe" if os.name == "nt" else "zoo-archiver"
_LOG_RECORD = re.compile(r"^(INFO|WARNING|ERROR) - ", re.MULTILINE)
_OS_ERROR = re.compile(r"\[Errno (\d+)\] (.*): ('.*'|\".*\")", re.DOTALL)


def find() -> str:
    """The path of the program: `ZOO_ARCHIVER`, else beside the interpreter, else on PATH."""
    configured = os.environ.get("ZOO_ARCHIVER")
    if configured:
        if os.path.isfile(configured) and os.access(configured, os.X_OK):
            return configured
        raise ModelArchiverError(
            f"ZOO_ARCHIVER names {configured!r}, which is not an executable file. "
            "Set it to the path of the zoo-archiver program, or unset it."
        )
    beside = os.path.join(os.path.dirname(sys.executable or ""), _NAME)
    if os.path.isfile(beside) and os.access(beside, os.X_OK):
        return beside
    on_path = shutil.which(_NAME)
    if on_path:
        return on_path
    raise ModelArchiverError(
        f"The program {_NAME} was not found: ZOO_ARCHIVER is not set, there is no {beside} and none on PATH. "
        "Install it in one of these places."
    )


def run(arguments: List[str], directory: Optional[str] = None) -> None:
    """Run the program as `torch-model-archiver` does; its warnings are logged, its failure is raised."""
    program = find()
    try:
        done = subprocess.run(
            [program] + arguments,
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            check=False,
        )
    except OSError as error:
        raise ModelArchiverError(f"{program} can't be started: {error.strerror or error}") from error
    failure = _relay(done.stderr.decode("utf-8", "replace"))
    if done.returncode < 0:
        raise ModelArchiverError(f"{program} was ended by signal {-done.returncode}.")
    if done.returncode != 0:
        _raise(failure or f"{program} failed with exit status {done.returncode}.")


def _relay(text: str) -> str:
    """Log the records in `text` and give back what is a failure: `ERROR` records, and what has no level."""
    parts = _LOG_RECORD.split(text)
    failure = [parts[0].strip()]
    for level, message in zip(parts[1::2], parts[2::2]):
        if level == "ERROR":
            failure.append(message.strip())
        else:
            logging.log(getattr(logging, level), "%s", message.strip())
    return "\n".join(part for part in failure if part)


def _raise(message: str) -> NoReturn:
    """Raise the exception that callers of the original API catch for this message."""
    system = _OS_ERROR.fullmatch(message)
    if system:
        raise OSError(int(system.group(1)), system.group(2), ast.literal_eval(system.group(3)))
    if message.startswith("File does not exist: "):
        # No errno: `str()` of this error is the message alone.
        raise FileNotFoundError(message)
    if message.startswith("Invalid extra file given "):
        raise ValueError(message)
    raise ModelArchiverError(message)
