"""Where ours differs from the peer on purpose: each test shows the peer's way, and asserts ours."""

import json
import shlex

import pytest
from sides import Pair, Side
from tree import plant

BASE = "--model-name m --version 1.0 --handler handler.py"


def test_staging_takes_nothing_away(model: Pair) -> None:
    """The peer stages in `<tmp>/<name>` and deletes what is there."""
    for side in model:
        (side.tmp / "m").mkdir()
        (side.tmp / "m/precious.txt").write_text("mine")
    peer, ours = (side.run(shlex.split(BASE)) for side in model)
    assert (peer.status, peer.leftovers) == (0, [])
    assert (ours.status, ours.leftovers) == (0, ["m"])
    assert (model.ours.tmp / "m/precious.txt").read_text() == "mine"


def test_function_after_suffix(model: Pair) -> None:
    """The peer looks for a file named `handlers/custom.py:entry`."""
    line = shlex.split("--model-name m --version 1.0 --handler handlers/custom.py:entry")
    peer, ours = (side.run(line) for side in model)
    assert (peer.status, peer.error) == (1, "[Errno 2] No such file or directory: 'handlers/custom.py:entry'")
    assert (ours.status, ours.error) == (0, "")
    entries = ours.files["m.mar"]
    assert "custom.py" in entries
    assert json.loads(entries["MAR-INF/MANIFEST.json"])["model"]["handler"] == "custom.py:entry"


def test_repeated_extra_files_add_up(model: Pair, archiver: str) -> None:
    """Under the peer's name the last one wins, under our own all are packed."""
    line = shlex.split(BASE + " --extra-files data/a.txt --extra-files data/b.txt")
    by_name = Side("by-name", [archiver], model.ours.root)
    plant(by_name.work)
    peer, ours = model.peer.run(line), by_name.run(line)
    assert sorted(peer.files["m.mar"]) == ["MAR-INF/MANIFEST.json", "b.txt", "handler.py"]
    assert sorted(ours.files["m.mar"]) == ["MAR-INF/MANIFEST.json", "a.txt", "b.txt", "handler.py"]


@pytest.mark.parametrize(
    ("line", "loser", "winner"),
    [
        ("--model-file model.py --extra-files other", "model.py", "other/model.py"),
        ("--extra-files settings -r requirements.txt", "settings/requirements.txt", "requirements.txt"),
        ("--extra-files settings -c config.yaml", "settings/config.yaml", "config.yaml"),
        ("--extra-files settings/config.yaml -c config.yaml", "settings/config.yaml", "config.yaml"),
    ],
)
def test_collisions_are_told(model: Pair, line: str, loser: str, winner: str) -> None:
    """The same file wins on both sides; the peer is silent about it."""
    peer, ours = (side.run(shlex.split(BASE + " " + line)) for side in model)
    assert (peer.status, peer.warnings) == (0, [])
    assert (ours.status, ours.error) == (0, "")
    assert len(ours.warnings) == 1 and f"{winner} takes the place of {loser}" in ours.warnings[0]
    assert ours.files == peer.files


def test_missing_export_path_is_made(model: Pair) -> None:
    """The released peer refuses it; the one that was never released makes it, and so do we."""
    line = shlex.split(BASE + " --export-path new/deep")
    peer, ours = (side.run(line) for side in model)
    assert peer.status == 1 and "new/deep is not a directory" in peer.error
    assert (ours.status, ours.error) == (0, "")
    assert len(ours.warnings) == 1 and "(new/deep) does not exist" in ours.warnings[0]
    assert "new/deep/m.mar" in ours.files


def test_colliding_folders_name_the_folder(model: Pair) -> None:
    """Both refuse; the peer names a path in its staging folder, which nobody has seen."""
    line = shlex.split(BASE + " --extra-files tree,other")
    peer, ours = (side.run(line) for side in model)
    assert (peer.status, peer.error) == (1, "[Errno 17] File exists: '$TMP/m/sub'")
    assert ours.status == 1 and "sub" in ours.error and "$TMP" not in ours.error
    assert "m.mar" not in ours.files and ours.leftovers == []


def test_workflow_without_handler(workflow: Pair) -> None:
    """The peer declares the flag optional and crashes without it."""
    line = shlex.split("--workflow-name w --spec-file spec.yaml")
    peer, ours = (side.run(line) for side in workflow)
    assert (peer.status, peer.error) == (1, "'NoneType' object has no attribute 'split'")
    assert (ours.status, ours.error) == (0, "")
    manifest = json.loads(ours.files["w.war"]["WAR-INF/MANIFEST.json"])
    assert manifest["workflow"] == {"workflowName": "w", "specFile": "spec.yaml"}
