"""The files that the command lines of the tests name, made in a side's working directory."""

import os
import random
from pathlib import Path

_TEXT = {
    "model.py": "class Net:\n    pass\n",
    "handler.py": "def handle(data, context):\n    return data\n",
    "handlers/custom.py": "def entry(data, context):\n    return data\n",
    "package.v2/model.py": "class Other:\n    pass\n",
    "config.yaml": "minWorkers: 1\n",
    "settings/config.yaml": "maxWorkers: 2\n",
    "requirements.txt": "numpy\n",
    "settings/requirements.txt": "pandas\n",
    "libnative.so": "\x7fELF, or nearly",
    "data/a.txt": "a\n",
    "data/b.txt": "b\n",
    "data/c.json": "{}\n",
    "data/.hidden": "dot files are taken\n",
    "tree/index.json": '{"0": ["n01440764", "tench"]}\n',
    "tree/.dotfile": "kept\n",
    "tree/empty.txt": "",
    "tree/sub/deep/leaf.txt": "leaf\n",
    "tree/sub/.hid/x.txt": "left out\n",
    "tree/sub/__pycache__/x.pyc": "left out\n",
    "tree/.git/config": "left out\n",
    "tree/__MACOSX/x.txt": "left out\n",
    "tree/sub/mod.pyc": "kept: files aren't filtered\n",
    "other/sub/leaf.txt": "collides with tree/sub\n",
    "other/model.py": "overwrites the model file\n",
    ".secret/inner.txt": "a hidden folder that is named itself\n",
    "a=b.txt": "an equals sign\n",
    "with space.txt": "a blank\n",
    "caf\u00e9.txt": "not ASCII\n",
    "odd[1].txt": "looks like a pattern\n",
    "odd1.txt": "is what the pattern means\n",
    "half[open.txt": "not a pattern\n",
    "notdir": "a file\n",
    "ready/m.mar": "",
    "ready/m.tar.gz": "",
    "ready/m/stale.txt": "stale\n",
    "ready/m/weights.pt": "old weights\n",
    "ready/w.war": "",
    "blocked/m.mar/x": "a folder under the archive's name\n",
    "spec.yaml": "dag: {}\n",
}
_CHANCE = random.Random(7)
_WEIGHTS = _CHANCE.getrandbits(8 * 70_000).to_bytes(70_000, "little")
# More than one block for whoever compresses in blocks.
_VOCABULARY = "".join(f"token{_CHANCE.randrange(5000)}\n" for _ in range(40_000)) * 8


def plant(work: Path) -> None:
    """Make the files; the same bytes each time."""
    for name, text in _TEXT.items():
        path = work / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())
    (work / "weights.pt").write_bytes(_WEIGHTS)
    (work / "vocab.txt").write_text(_VOCABULARY)
    (work / "tree/hollow/inner").mkdir(parents=True)
    (work / "out").mkdir()
    os.symlink("../data/a.txt", work / "tree/linked.txt")
    os.symlink("../../data", work / "tree/sub/linked-data")
    (work / "links").mkdir()
    (work / "links/plain.txt").write_text("plain\n")
    os.symlink("nowhere", work / "links/dangling.txt")
    os.symlink("weights.pt", work / "latest.pt")
    os.mkfifo(work / "pipe")
