"""Starts servers, waits for them, and stops them with everything that they started. Knows no contender."""

import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Tuple

from . import BenchError

STARTED_WITHIN_S = 60
STOPPED_WITHIN_S = 15
QUOTED_LINES = 5


def free_port() -> int:
    """A port of the loopback address that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def ask(method: str, url: str, body: Optional[bytes] = None) -> Tuple[int, str]:
    """Status and text of one answer; a refusal is an answer, too."""
    request = urllib.request.Request(url, data=body, method=method)
    try:
        with urllib.request.urlopen(request, timeout=STARTED_WITHIN_S) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refusal:
        return refusal.code, refusal.read().decode(errors="replace")


class Server:
    """A server in a process group of its own; leaving the context ends the group and every descendant."""

    def __init__(
        self, name: str, command: Sequence[str], folder: Path, environment: Optional[Dict[str, str]] = None
    ):
        self.name = name
        self.log = folder / "server.log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [str(part) for part in command],
                cwd=folder,
                env={**os.environ, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        started = [(pid, birth(pid)) for pid in tree(self.process.pid)]
        signal_group(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(STOPPED_WITHIN_S)
        except subprocess.TimeoutExpired:
            pass
        signal_group(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for pid, born in started:
            if born is not None and birth(pid) == born:
                os.kill(pid, signal.SIGKILL)

    def wait_until_answers(self, url: str, body: Optional[bytes] = None) -> None:
        """Returns when `url` answers 200."""
        deadline = time.monotonic() + STARTED_WITHIN_S
        last = "no answer"
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise self.error(f"ended with status {self.process.returncode} instead of starting")
            try:
                status, text = ask("GET" if body is None else "POST", url, body)
                if status == 200:
                    return
                last = f"status {status}: {' '.join(text.split())}"
            except OSError as error:
                last = str(error)
            time.sleep(0.05)
        raise self.error(f"didn't answer {url} within {STARTED_WITHIN_S} s ({last})")

    def error(self, what: str) -> BenchError:
        """The error that `what` is, with the last lines that the server wrote."""
        lines = self.log.read_text(errors="replace").strip().splitlines()[-QUOTED_LINES:]
        return BenchError(f"{self.name} {what}; it wrote last: {' | '.join(lines) or 'nothing'}")


def signal_group(leader: int, number: int) -> None:
    """Signals what is left of a group."""
    try:
        os.killpg(leader, number)
    except ProcessLookupError:
        pass


def stat_fields(pid: int) -> Optional[List[str]]:
    """The fields after the command's name in `/proc/<pid>/stat`."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def birth(pid: int) -> Optional[str]:
    """When a process started: with its id, what tells it from a later one."""
    fields = stat_fields(pid)
    return fields[19] if fields and fields[0] != "Z" else None


def tree(root: int) -> List[int]:
    """A process and its descendants."""
    children: Dict[int, List[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            fields = stat_fields(int(entry.name))
            if fields:
                children.setdefault(int(fields[1]), []).append(int(entry.name))
    found = [root]
    for pid in found:
        found.extend(children.get(pid, ()))
    return found
