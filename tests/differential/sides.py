"""Runs one command line on both sides, the peer and ours, and says what can be seen of it afterwards.

Each side has a working directory and a temporary directory of its own, with the same content. Doesn't know
what should be equal: that is what the tests say.
"""

import hashlib
import io
import json
import os
import re
import subprocess
import tarfile
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, List, Mapping, NamedTuple, Sequence, Tuple

DIGESTS = "MAR-INF/SHA256SUMS"
_RECORD = re.compile(r"^(INFO|WARNING|ERROR) - ", re.MULTILINE)
_TRACEBACK = "Traceback (most recent call last):\n"
_CREATED = re.compile(r'(?<="createdOn": ")\d\d/\d\d/\d{4} \d\d:\d\d:\d\d(?=")')
_WRITER = re.compile(r'(?<="archiverVersion": ")[^"]+(?=")')


@dataclass
class Seen:
    """What a side leaves behind."""

    status: int
    error: str
    """The text of the failure; empty if there was none or if it is a usage text."""
    warnings: List[str]
    files: Dict[str, object]
    """Path below the working directory → bytes, link target, or the entries of an archive."""
    leftovers: List[str]
    """What is in the temporary directory."""


@dataclass
class Side:
    """A program in directories of its own."""

    name: str
    command: Sequence[str]
    root: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.work.mkdir(parents=True)
        self.tmp.mkdir()

    @property
    def work(self) -> Path:
        return self.root / self.name / "work"

    @property
    def tmp(self) -> Path:
        return self.root / self.name / "tmp"

    def run(self, arguments: Sequence[str]) -> Seen:
        """Run the program in the working directory."""
        done = subprocess.run(
            [*self.command, *arguments],
            cwd=self.work,
            env={**os.environ, "TMPDIR": str(self.tmp), **self.environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            check=False,
            timeout=120,
        )
        text = done.stderr.decode().replace(str(self.work), "$WORK").replace(str(self.tmp), "$TMP")
        warnings, error = _messages(text)
        return Seen(
            status=done.returncode,
            error="" if done.returncode == 2 else error,
            warnings=warnings,
            files=snapshot(self.work),
            leftovers=sorted(os.listdir(self.tmp)),
        )


class Pair(NamedTuple):
    """Both sides of one comparison."""

    peer: Side
    ours: Side


def _messages(stderr: str) -> Tuple[List[str], str]:
    """The warnings and the final error: of the last traceback, else the `ERROR` records and bare text."""
    said, *tracebacks = stderr.split(_TRACEBACK)
    bare, *records = _RECORD.split(said)
    levels = list(zip(records[0::2], (message.rstrip("\n") for message in records[1::2])))
    warnings = [message for level, message in levels if level == "WARNING"]
    if tracebacks:
        final = re.search(r"^\S.*", tracebacks[-1], re.MULTILINE | re.DOTALL)
        assert final, stderr
        return warnings, final.group().partition(": ")[2].rstrip("\n")
    errors = [bare.strip()] + [message for level, message in levels if level == "ERROR"]
    return warnings, "\n".join(error for error in errors if error)


def snapshot(directory: Path) -> Dict[str, object]:
    """Everything below a directory, with archives opened and manifests made comparable."""
    seen: Dict[str, object] = {}
    for root, directories, files in os.walk(directory):
        for name in directories + files:
            path = Path(root, name)
            key = path.relative_to(directory).as_posix()
            if path.is_symlink():
                seen[key] = "link to " + os.readlink(path)
            elif path.is_dir():
                seen[key + "/"] = b""
            elif path.is_file():
                seen[key] = _content(key, path.read_bytes())
            else:
                seen[key] = "special"
    return _comparable(seen)


def _content(name: str, data: bytes) -> object:
    if name.endswith((".mar", ".war")) and data:
        return _comparable(zip_entries(data))
    if name.endswith(".tar.gz") and data:
        return _comparable(tar_entries(data))
    return data


def zip_entries(data: bytes) -> Dict[str, object]:
    """Name → bytes of each entry; an entry that is there twice is a failure."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = archive.namelist()
        assert len(names) == len(set(names)), names
        return {name: archive.read(name) for name in names}


def tar_entries(data: bytes) -> Dict[str, object]:
    """Name → bytes of each entry; all have to be plain files."""
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        members = archive.getmembers()
        names = [member.name for member in members]
        assert len(names) == len(set(names)), names
        assert all(member.isfile() for member in members), names
        return {member.name: archive.extractfile(member).read() for member in members}


def _comparable(files: Dict[str, object]) -> Dict[str, object]:
    """Check and take away digests, and take the two fields that have to differ out of manifests."""
    for sums in [name for name in files if name.endswith(DIGESTS)]:
        check_digests(files, sums[: -len(DIGESTS)])
        del files[sums]
    for name, content in files.items():
        if name.endswith(("MAR-INF/MANIFEST.json", "WAR-INF/MANIFEST.json")):
            files[name] = _comparable_manifest(content.decode())
    return files


def _comparable_manifest(text: str) -> str:
    json.loads(text)
    text, moments = _CREATED.subn("NOW", text)
    text, writers = _WRITER.subn("WRITER", text)
    assert (moments, writers) == (1, 1), text
    return text


def check_digests(files: Mapping[str, object], prefix: str) -> None:
    """The digest file has one right line for each other file below `prefix`, in order."""
    inside = {name[len(prefix) :]: data for name, data in files.items() if name.startswith(prefix)}
    sums = inside.pop(DIGESTS).decode()
    lines = [
        f"{hashlib.sha256(data).hexdigest()}  {name}"
        for name, data in sorted(inside.items(), key=lambda entry: entry[0].encode())
        if name and not name.endswith("/")
    ]
    assert sums == "\n".join(lines) + "\n"
