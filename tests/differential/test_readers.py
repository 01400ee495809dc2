"""What others read of our archives: Python, unzip, sha256sum, tar, TorchServe."""

import shlex
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest
from sides import Pair, Side, check_digests, tar_entries, zip_entries

EVERYTHING = (
    "--model-name m --version 1.0 --handler handlers/custom:entry --serialized-file weights.pt"
    " --model-file model.py --extra-files tree,vocab.txt,data,caf\u00e9.txt"
    " -r requirements.txt -c config.yaml"
)


def _pack(side: Side, archive_format: str) -> None:
    seen = side.run(shlex.split(EVERYTHING) + ["--archive-format", archive_format])
    assert (seen.status, seen.error) == (0, "")


def _tool(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.skip(name + " is not installed")
    return path


def _call(*command: str, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    assert done.returncode == 0, done.stdout.decode()
    return done.stdout.decode()


def test_zipfile(model: Pair) -> None:
    _pack(model.ours, "default")
    with zipfile.ZipFile(model.ours.work / "m.mar") as archive:
        assert archive.testzip() is None
        methods = {entry.filename: entry.compress_type for entry in archive.infolist()}
        names = archive.namelist()
    # Random bytes can't be made smaller; text can.
    assert methods["weights.pt"] == zipfile.ZIP_STORED
    assert methods["vocab.txt"] == zipfile.ZIP_DEFLATED
    assert "caf\u00e9.txt" in names
    check_digests(zip_entries((model.ours.work / "m.mar").read_bytes()), "")


def test_zip_store_compresses_nothing(model: Pair) -> None:
    _pack(model.ours, "zip-store")
    with zipfile.ZipFile(model.ours.work / "m.mar") as archive:
        assert archive.testzip() is None
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}


def test_tarfile(model: Pair) -> None:
    _pack(model.ours, "tgz")
    check_digests(tar_entries((model.ours.work / "m.tar.gz").read_bytes()), "m/")


@pytest.mark.parametrize("archive_format", ["default", "zip-store"])
def test_unzip_and_sha256sum(model: Pair, archive_format: str) -> None:
    unzip, sha256sum = _tool("unzip"), _tool("sha256sum")
    _pack(model.ours, archive_format)
    assert "No errors detected" in _call(unzip, "-t", "m.mar", cwd=model.ours.work)
    _call(unzip, "-q", "m.mar", "-d", "unpacked", cwd=model.ours.work)
    checked = _call(sha256sum, "--strict", "-c", "MAR-INF/SHA256SUMS", cwd=model.ours.work / "unpacked")
    assert checked.splitlines() == [line for line in checked.splitlines() if line.endswith(": OK")] != []


def test_tar_and_sha256sum(model: Pair) -> None:
    tar, sha256sum = _tool("tar"), _tool("sha256sum")
    _pack(model.ours, "tgz")
    _call(tar, "-xzf", "m.tar.gz", cwd=model.ours.work)
    _call(sha256sum, "--strict", "-c", "MAR-INF/SHA256SUMS", cwd=model.ours.work / "m")


def test_folder_and_sha256sum(model: Pair) -> None:
    sha256sum = _tool("sha256sum")
    _pack(model.ours, "no-archive")
    _call(sha256sum, "--strict", "-c", "MAR-INF/SHA256SUMS", cwd=model.ours.work / "m")


@pytest.mark.parametrize(
    ("archive_format", "url"),
    # A folder is served in place, from its absolute path.
    [("default", "m.mar"), ("zip-store", "m.mar"), ("tgz", "m.tar.gz"), ("no-archive", "{work}/m")],
)
def test_torchserve(model: Pair, peers: Path, tmp_path: Path, archive_format: str, url: str) -> None:
    """The frontend's classes read the archive and find in it what the peer's archive has."""
    java, _ = _tool("java"), _tool("javac")
    (jar,) = peers.glob("lib/python*/site-packages/ts/frontend/model-server.jar")
    _pack(model.ours, archive_format)
    unpacked = tmp_path / "java"
    unpacked.mkdir()
    said = _call(
        *[
            java,
            "-XX:TieredStopAtLevel=1",
            "-XX:+UseSerialGC",
            f"-Djava.io.tmpdir={unpacked}",
            "-cp",
            str(jar),
        ],
        *[
            str(Path(__file__).with_name("ReadArchive.java")),
            str(model.ours.work),
            url.format(work=model.ours.work),
        ],
        cwd=model.ours.work,
    )
    facts = dict(line.split("=", 1) for line in said.splitlines() if "=" in line)
    assert (facts["name"], facts["version"], facts["handler"]) == ("m", "1.0", "custom:entry")
    directory = Path(facts["directory"])
    assert (directory / "weights.pt").read_bytes() == (model.ours.work / "weights.pt").read_bytes()
    assert (directory / "sub/deep/leaf.txt").read_text() == "leaf\n"
