"""Makes the Python environment of a peer when it is missing. Knows pins and folders, and no server."""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from typing import List, Sequence

from . import BenchError

PEERS = Path(__file__).resolve().parent.parent / "peers"
READY = ".ready"


def cache_root() -> Path:
    """Where environments outlive a run, outside the checkout."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "zoo"


def environment(name: str, modules: Sequence[str] = ()) -> Path:
    """The Python of the environment for `peers/name`: its pins, and modules of ours that it needs too.

    The folder's name holds a hash of all that: a changed pin makes a new environment, no old one is mended.
    """
    requirements = PEERS / name / "requirements.txt"
    stand_ins = [PEERS / name / module for module in modules]
    content = b"\0".join([sys.version.encode()] + [path.read_bytes() for path in [requirements, *stand_ins]])
    folder = cache_root() / f"bench-{name}-{hashlib.sha256(content).hexdigest()[:12]}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(f"{folder}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / READY).exists():
            make(folder, requirements, stand_ins)
    return folder / "bin" / "python"


def make(folder: Path, requirements: Path, stand_ins: List[Path]) -> None:
    """Builds the environment from nothing; the last thing written says that it is whole."""
    print(f"preparing {folder}", file=sys.stderr)
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder, with_pip=True)
    command = [
        str(folder / "bin" / "python"),
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
        "--requirement",
        str(requirements),
    ]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise BenchError(f"cannot install {requirements}: {done.stdout.strip().splitlines()[-1:]}")
    packages = sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)})
    for path in stand_ins:
        shutil.copy(path, packages)
    (folder / READY).touch()


def pinned_version(name: str) -> str:
    """The version of the peer itself: the first pin of its file."""
    return (PEERS / name / "requirements.txt").read_text().splitlines()[0].replace("==", " ")
