"""Starts real servers. `ZOO_SERVER` and `ZOO_ARCHIVER` name the programs under test."""

import os
import shutil

import pytest

from zoo import Programs, Zoo

SDK = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
REPOSITORY = os.path.dirname(os.path.dirname(SDK))


@pytest.fixture(scope="session")
def programs():
    found = {name: os.environ.get(name) for name in ("ZOO_SERVER", "ZOO_ARCHIVER")}
    for name, path in found.items():
        if not path:
            pytest.skip("{} doesn't name a program".format(name))
    paths = [os.path.abspath(path) for path in found.values()]
    for path in paths:
        assert shutil.which(path), "{} is no program".format(path)
    return Programs(*paths)


@pytest.fixture(scope="session")
def zoo(programs, tmp_path_factory):
    """The server that most tests share, each with models of its own."""
    with Zoo(programs, tmp_path_factory.mktemp("zoo")) as running:
        yield running
        assert running.process.poll() is None, running.log()


@pytest.fixture(scope="session")
def examples():
    return os.path.join(REPOSITORY, "examples")
