"""`torch-model-archiver` 0.12 and ours do and say the same.

A case is one command line; each side runs it in a folder with the files of `tree`. Compared are the exit
status, the error, the warnings and every file below the folder afterwards, archives entry by entry.
"""

import json
import shlex
from datetime import datetime, timedelta, timezone

import pytest
from sides import Pair, snapshot, zip_entries

BASE = "--model-name m --version 1.0 --handler handler.py"
WITH_WEIGHTS = BASE + " --serialized-file weights.pt"

SUCCESSES = {
    # Formats, and each optional file.
    "least": BASE,
    "weights": WITH_WEIGHTS,
    "eager": WITH_WEIGHTS + " --model-file model.py",
    "everything": WITH_WEIGHTS
    + " --model-file model.py --extra-files vocab.txt,tree --runtime python3 --export-path out"
    + " -r requirements.txt -c config.yaml",
    "zip-store": WITH_WEIGHTS + " --archive-format zip-store --extra-files tree,vocab.txt",
    "default by name": WITH_WEIGHTS + " --archive-format default --extra-files vocab.txt",
    "tgz": WITH_WEIGHTS + " --archive-format tgz --extra-files tree,vocab.txt -c config.yaml",
    "no-archive": WITH_WEIGHTS + " --archive-format no-archive --extra-files tree,vocab.txt",
    "weights by link": BASE + " --serialized-file latest.pt",
    # Handlers and runtimes.
    "built-in handler": "--model-name m --version 1 --handler image_classifier --serialized-file weights.pt",
    "newest built-in handlers": "--model-name m --version 1.0 --handler vllm_handler",
    "handler without suffix": "--model-name m --version 1.0 --handler handler",
    "handler in a folder": "--model-name m --version 1.0 --handler handlers/custom.py",
    "handler in a folder without suffix": "--model-name m --version 1.0 --handler handlers/custom",
    "handler with function": "--model-name m --version 1.0 --handler handlers/custom:entry",
    "native handler": "--model-name m --version 1.0 --runtime LSP --handler libnative",
    "native handler with class": "--model-name m --version 1.0 --runtime LSP --handler ./libnative:Handler",
    "built-in native handler": "--model-name m --version 1.0 --runtime LSP --handler TorchScriptHandler",
    # Names and versions.
    "name with dots": "--model-name resnet-18.v2_final --version 2.0.1-rc.1 --handler handler.py",
    "name of one digit": "--model-name 7 --version 1 --handler handler.py",
    "version not ASCII": BASE + " --version 'caf\u00e9 \"1\" \\'",
    "empty version": BASE + " --version ''",
    "negative version": BASE + " --version -1",
    "model file in a dotted folder": BASE + " --model-file package.v2/model.py",
    # Where the archive goes.
    "export path": BASE + " --export-path out",
    "export path with slash": BASE + " --export-path out/",
    "empty export path": BASE + " --export-path ''",
    "force without need": BASE + " --force",
    "force over an archive": WITH_WEIGHTS + " --export-path ready -f",
    "force over a tgz": WITH_WEIGHTS + " --export-path ready --archive-format tgz --force",
    "force over a folder": WITH_WEIGHTS + " --export-path ready --archive-format no-archive --force",
    # Extra files.
    "extra file": BASE + " --extra-files vocab.txt",
    "extra folder": BASE + " --extra-files tree",
    "extra folder with slash": BASE + " --extra-files ./tree/",
    "extra hidden folder": BASE + " --extra-files .secret",
    "extra folder of links": BASE + " --extra-files links",
    "extra folder in a folder": BASE + " --extra-files tree/sub",
    "extra pattern": BASE + " --extra-files 'data/*.txt'",
    "extra pattern skips dot files": BASE + " --extra-files 'data/*'",
    "extra pattern of one character": BASE + " --extra-files 'data/?.json'",
    "extra pattern of a class": BASE + " --extra-files 'data/[!b].*'",
    "extra pattern of folders": BASE + " --extra-files 't*ee'",
    "extra pattern in the middle": BASE + " --extra-files '*/sub/deep/*'",
    "extra double star": BASE + " --extra-files 'tree/**'",
    "extra pattern without match": BASE + " --extra-files 'data/*.bin,data/a.txt'",
    "extra pattern with blanks": BASE + " --extra-files 'data/a*, data/b*'",
    "extra pattern in brackets": BASE + " --extra-files 'odd[1].txt'",
    "extra half bracket": BASE + " --extra-files 'half[open.txt'",
    "extra trailing comma": BASE + " --extra-files vocab.txt,",
    "extra names with signs": BASE + " --extra-files 'a=b.txt,with space.txt,caf\u00e9.txt'",
    "extra file twice": BASE + " --extra-files data/a.txt,data/a.txt",
    "empty optional values": BASE + " --extra-files '' -r '' -c '' --serialized-file '' --model-file ''",
    # The habits of argparse.
    "equals signs": "--model-name=m --version=1.0 --handler=handler.py --extra-files=a=b.txt",
    "long prefixes": BASE
    + " --ser weights.pt --exp out --arch zip-store --ext vocab.txt --req requirements.txt",
    "joined short flags": "--model-name m -v1.0 --handler handler.py -fr requirements.txt -cconfig.yaml",
    "last extra files win": BASE + " --extra-files data/a.txt --extra-files data/b.txt",
    "last flag wins": BASE + " --version 2.0 --serialized-file none.pt --serialized-file weights.pt",
}

FAILURES = {
    "bad name": "--model-name 'a b' --version 1.0 --handler handler.py",
    "name with a slash": "--model-name a/b --version 1.0 --handler handler.py",
    "name with a leading dot": "--model-name .m --version 1.0 --handler handler.py",
    "name not ASCII": "--model-name mod\u00e8le --version 1.0 --handler handler.py",
    "empty name": "--model-name '' --version 1.0 --handler handler.py",
    "bad name before bad path": "--model-name 'a b' --version 1.0 --handler handler.py --export-path notdir",
    "export path is a file": BASE + " --export-path notdir",
    "existing archive": WITH_WEIGHTS + " --export-path ready",
    "existing archive by slash": BASE + " --export-path ready/",
    "existing tgz": BASE + " --export-path ready --archive-format tgz",
    "existing folder": BASE + " --export-path ready --archive-format no-archive",
    "existing archive before missing file": BASE + " --export-path ready --serialized-file none.pt",
    "missing weights": BASE + " --serialized-file none.pt",
    "missing model file": BASE + " --model-file none/net.py",
    "missing handler": "--model-name m --version 1.0 --handler none.py",
    "missing handler without suffix": "--model-name m --version 1.0 --handler none",
    "missing handler of a function": "--model-name m --version 1.0 --handler none:entry",
    "unlisted built-in handler": "--model-name m --version 1.0 --handler vision_handler",
    "missing requirements": BASE + " -r none.txt",
    "missing configuration": BASE + " -c none.yaml",
    "missing native handler": "--model-name m --version 1.0 --runtime LSP --handler libnone",
    "native handler with suffix": "--model-name m --version 1.0 --runtime LSP --handler libnative.so",
    "built-in handler of another runtime": "--model-name m --version 1 --runtime LSP --handler base_handler",
    "missing extra file": BASE + " --extra-files vocab.txt,none.txt",
    "missing extra file with a quote": BASE + ' --extra-files "it\'s.txt"',
    "missing weights with a quote": BASE + ' --serialized-file "it\'s.pt"',
    "missing weights not ASCII": BASE + " --serialized-file mod\u00e8le.pt",
    "extra file after a blank": BASE + " --extra-files 'data/a.txt, data/b.txt'",
    "dangling link": BASE + " --extra-files links/dangling.txt",
    "dangling link by pattern": BASE + " --extra-files 'links/*'",
    "extra pipe": BASE + " --extra-files pipe",
    "folder as weights": BASE + " --serialized-file data",
    "folder as configuration": BASE + " -c settings",
    "empty file name in a file": BASE + " --serialized-file notdir/weights.pt",
    "folder under the archive's name": BASE + " --export-path blocked --force",
}

USAGE_ERRORS = {
    "nothing": "",
    "no name": "--version 1.0 --handler handler.py",
    "no version": "--model-name m --handler handler.py",
    "no handler": "--model-name m --version 1.0",
    "unknown runtime": BASE + " --runtime java",
    "unknown format": BASE + " --archive-format rar",
    "unknown flag": BASE + " --frobnicate",
    "stray word": BASE + " weights.pt",
    "no value": BASE + " --serialized-file",
    "flag as a value": BASE + " --serialized-file --force",
    "ambiguous prefix": BASE + " --model model.py",
}


def _cases(table):
    return [pytest.param(line, id=name) for name, line in table.items()]


@pytest.mark.parametrize("line", _cases(SUCCESSES))
def test_packs_the_same(model: Pair, line: str) -> None:
    peer, ours = (side.run(shlex.split(line)) for side in model)
    assert (peer.status, peer.error) == (0, "")
    assert (ours.status, ours.error, ours.warnings) == (peer.status, peer.error, peer.warnings)
    assert _names(ours) == _names(peer)
    assert ours.files == peer.files
    assert ours.leftovers == []


@pytest.mark.parametrize("line", _cases(FAILURES))
def test_fails_the_same(model: Pair, line: str) -> None:
    before = snapshot(model.ours.work)
    peer, ours = (side.run(shlex.split(line)) for side in model)
    assert peer.status == 1 and peer.error
    assert (ours.status, ours.error, ours.warnings) == (peer.status, peer.error, peer.warnings)
    assert ours.files == before
    assert ours.leftovers == []


@pytest.mark.parametrize("line", _cases(USAGE_ERRORS))
def test_refuses_the_same(model: Pair, line: str) -> None:
    peer, ours = (side.run(shlex.split(line)) for side in model)
    assert (ours.status, peer.status) == (2, 2)
    assert ours.files == peer.files


def test_help_succeeds(model: Pair) -> None:
    assert [side.run(["--help"]).status for side in model] == [0, 0]


def test_failure_leaves_the_older_archive(model: Pair) -> None:
    line = shlex.split(BASE + " --export-path ready --force")
    for side in model:
        old = side.run(line).files["ready/m.mar"]
        after = side.run(line + ["--serialized-file", "none.pt"])
        assert (after.status, after.files["ready/m.mar"]) == (1, old)


def test_created_on_is_local_time(model: Pair) -> None:
    """The field that the other comparisons leave out."""
    zone = timezone(timedelta(hours=5, minutes=45))
    for side in model:
        before = datetime.now(zone).replace(tzinfo=None, microsecond=0)
        assert side.run(shlex.split(BASE)).status == 0
        after = datetime.now(zone).replace(tzinfo=None)
        manifest = json.loads(zip_entries((side.work / "m.mar").read_bytes())["MAR-INF/MANIFEST.json"])
        assert before <= datetime.strptime(manifest["createdOn"], "%d/%m/%Y %H:%M:%S") <= after
        assert manifest["archiverVersion"]


def test_input_is_left_alone(model: Pair) -> None:
    """Nothing but the output changes, although all of it lies in one folder."""
    line = shlex.split(BASE + " --extra-files links,tree,data --archive-format no-archive --export-path out")
    for side in model:
        before = snapshot(side.work)
        after = side.run(line)
        assert after.status == 0
        assert {name: data for name, data in after.files.items() if not name.startswith("out/m/")} == before


def _names(seen):
    """Names alone, so that a difference of names is not drowned in bytes."""
    return {
        name: sorted(content) if isinstance(content, dict) else None for name, content in seen.files.items()
    }
