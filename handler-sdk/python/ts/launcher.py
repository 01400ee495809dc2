"""Starts and stops the server from a script, and registers models.

    from ts.launcher import start, stop, register_model

The server is the `torchserve` command that `zoo-server install-compat` makes, or `zoo-server` called by that
name.
"""

import json
import os
import queue
import shutil
import subprocess
import sys
import threading
import urllib.error
import urllib.parse
import urllib.request
from typing import Any, Dict, List, Optional, TextIO, Tuple, Union

MANAGEMENT = "http://localhost:8081"
_STARTED = "Model server started"


class Response:
    """An answer of the server, with the names that the `requests` package has for its parts."""

    def __init__(self, status_code: int, headers: Any, content: bytes) -> None:
        self.status_code = status_code
        self.headers = headers
        self.content = content

    @property
    def ok(self) -> bool:
        return self.status_code < 400

    @property
    def text(self) -> str:
        return self.content.decode("utf-8", "replace")

    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.content)


def server_command() -> Tuple[str, str]:
    """The program to run and the name to call it by: the one beside this Python, else the one on the path."""
    beside = os.path.dirname(sys.executable)
    for name in ("torchserve", "zoo-server"):
        for program in (shutil.which(name, path=beside), shutil.which(name)):
            if program is not None and not _is_python_script(program):
                return program, os.path.join(os.path.dirname(program), "torchserve")
    raise RuntimeError(
        "neither torchserve nor zoo-server is beside {} or on the PATH: install zoo-server and run "
        "`zoo-server install-compat DIR` with a directory on the PATH".format(sys.executable)
    )


def _is_python_script(program: str) -> bool:
    """Whether this is a script that pip made. It leads to `ts.model_server`, and so back to here."""
    with open(program, "rb") as file:
        first = file.read(256).split(b"\n", 1)[0]
    return first.startswith(b"#!") and b"python" in first


def start(
    model_store: Optional[str] = None,
    snapshot_file: Optional[str] = None,
    no_config_snapshots: bool = False,
    plugin_folder: Optional[str] = None,
    disable_token: bool = False,
    models: Union[str, List[str], None] = None,
    enable_model_api: bool = False,
) -> "queue.Queue[str]":
    """Stops a server that runs, starts one, and returns when it has started.

    The server's output is echoed until then; lines that it prints later are in the queue that is returned.
    """
    stop()
    options = ["--start"]
    if model_store:
        options += ["--model-store", model_store]
    if plugin_folder:
        options += ["--plugins-path", plugin_folder]
    if snapshot_file:
        options += ["--ts-config", snapshot_file]
    if no_config_snapshots:
        options.append("--no-config-snapshots")
    if disable_token:
        options.append("--disable-token-auth")
    if models:
        options += ["--models"] + ([models] if isinstance(models, str) else list(models))
    if enable_model_api:
        options.append("--enable-model-api")
    program, name = server_command()
    process = subprocess.Popen(
        [name] + options,
        executable=program,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    )
    _echo_until_started(process)
    lines: "queue.Queue[str]" = queue.Queue()
    threading.Thread(target=_collect, args=(process, lines), daemon=True).start()
    return lines


def _output(process: "subprocess.Popen[str]") -> TextIO:
    if process.stdout is None:
        raise RuntimeError("the server was started without a pipe for its output")
    return process.stdout


def _echo_until_started(process: "subprocess.Popen[str]") -> None:
    last: List[str] = []
    for line in _output(process):
        print(line.rstrip("\n"), flush=True)
        last = (last + [line])[-20:]
        if _STARTED in line:
            return
    raise RuntimeError(
        "the server ended with status {} before it had started:\n{}".format(process.wait(), "".join(last))
    )


def _collect(process: "subprocess.Popen[str]", lines: "queue.Queue[str]") -> None:
    for line in _output(process):
        lines.put(line)
    process.wait()


def stop(wait: bool = True) -> None:
    """Stops the server, if one runs; with `wait`, returns when it has ended."""
    program, name = server_command()
    command = [name, "--stop"] + (["--foreground"] if wait else [])
    subprocess.run(command, executable=program, check=False)


def register_model(model_name: str, url: str) -> Response:
    """Registers an archive with one worker, and waits for it."""
    return register_model_with_params(
        {"model_name": model_name, "url": url, "initial_workers": "1", "synchronous": "true"}
    )


def register_model_with_params(params: Union[Dict[str, Any], List[Tuple[str, Any]]]) -> Response:
    """Registers an archive with parameters of the management API."""
    query = urllib.parse.urlencode(params)
    request = urllib.request.Request("{}/models?{}".format(MANAGEMENT, query), data=b"", method="POST")
    try:
        with urllib.request.urlopen(request) as answer:
            return Response(answer.status, answer.headers, answer.read())
    except urllib.error.HTTPError as refusal:
        return Response(refusal.code, refusal.headers, refusal.read())
