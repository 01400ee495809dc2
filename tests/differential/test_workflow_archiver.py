"""`torch-workflow-archiver` 0.2.15 and ours do and say the same."""

import shlex

import pytest
from sides import Pair

BASE = "--workflow-name w --spec-file spec.yaml --handler handlers/custom.py"

SUCCESSES = {
    "least": BASE,
    "everything": BASE + " --extra-files vocab.txt,data/a.txt --export-path out --force",
    "name with dots": "--workflow-name dog-breed.v2_x --spec-file settings/config.yaml --handler handler.py",
    "force over an archive": BASE + " --export-path ready -f",
}

FAILURES = {
    "bad name": "--workflow-name 'a b' --spec-file spec.yaml --handler handler.py",
    "export path is missing": BASE + " --export-path none",
    "export path is a file": BASE + " --export-path notdir",
    "existing archive": BASE + " --export-path ready",
    "missing specification": "--workflow-name w --spec-file none.yaml --handler handler.py",
    "missing handler": "--workflow-name w --spec-file spec.yaml --handler none.py",
    "missing extra file": BASE + " --extra-files vocab.txt,none.txt",
    "extra folder": BASE + " --extra-files data",
}

USAGE_ERRORS = {
    "no name": "--spec-file spec.yaml --handler handler.py",
    "no specification": "--workflow-name w --handler handler.py",
    "unknown flag": BASE + " --runtime python",
}


def _cases(table):
    return [pytest.param(line, id=name) for name, line in table.items()]


@pytest.mark.parametrize("line", _cases(SUCCESSES))
def test_packs_the_same(workflow: Pair, line: str) -> None:
    peer, ours = (side.run(shlex.split(line)) for side in workflow)
    assert (peer.status, peer.error) == (0, "")
    assert (ours.status, ours.error, ours.warnings) == (peer.status, peer.error, peer.warnings)
    assert ours.files == peer.files
    assert ours.leftovers == []


@pytest.mark.parametrize("line", _cases(FAILURES))
def test_fails_the_same(workflow: Pair, line: str) -> None:
    peer, ours = (side.run(shlex.split(line)) for side in workflow)
    assert peer.status == 1 and peer.error
    assert (ours.status, ours.error, ours.warnings) == (peer.status, peer.error, peer.warnings)
    assert ours.files == peer.files
    assert ours.leftovers == []


@pytest.mark.parametrize("line", _cases(USAGE_ERRORS))
def test_refuses_the_same(workflow: Pair, line: str) -> None:
    peer, ours = (side.run(shlex.split(line)) for side in workflow)
    assert (ours.status, peer.status) == (2, 2)
