"""The two sides of each comparison: the peers from PyPI, and the program that `ZOO_ARCHIVER` names."""

import os
import subprocess
from pathlib import Path
from typing import Callable

import pytest
from sides import Pair, Side
from tree import plant

HERE = Path(__file__).parent
# Not that of the machine, and not in any time zone database, so that `createdOn` shows who reads it.
TIME_ZONE = {"TZ": "ZOO-05:45"}


@pytest.fixture(scope="session")
def peers() -> Path:
    """The Python environment that the peers are installed in."""
    made = subprocess.run([str(HERE / "peers-env")], stdout=subprocess.PIPE, check=True)
    return Path(made.stdout.decode().strip())


@pytest.fixture(scope="session")
def archiver() -> str:
    """The path of our program."""
    path = os.environ.get("ZOO_ARCHIVER", "")
    assert os.access(path, os.X_OK), (
        f"ZOO_ARCHIVER must be the path of a zoo-archiver program, it is {path!r}"
    )
    return path


@pytest.fixture(scope="session")
def drop_ins(archiver: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with our program under the peers' names."""
    folder = tmp_path_factory.mktemp("bin")
    for name in ("torch-model-archiver", "torch-workflow-archiver"):
        (folder / name).symlink_to(archiver)
    return folder


@pytest.fixture
def sides(peers: Path, drop_ins: Path, tmp_path: Path) -> Callable[[str], Pair]:
    """Makes a pair of sides for a program, with the same files."""

    def make(program: str) -> Pair:
        pair = Pair(
            Side(
                "peer", [str(peers / "bin/python"), "-B", str(peers / "bin" / program)], tmp_path, TIME_ZONE
            ),
            Side("ours", [str(drop_ins / program)], tmp_path, TIME_ZONE),
        )
        for side in pair:
            plant(side.work)
        return pair

    return make


@pytest.fixture
def model(sides: Callable[[str], Pair]) -> Pair:
    """Both model archivers."""
    return sides("torch-model-archiver")


@pytest.fixture
def workflow(sides: Callable[[str], Pair]) -> Pair:
    """Both workflow archivers."""
    return sides("torch-workflow-archiver")
