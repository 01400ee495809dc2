"""``python -m zoo_handler test``: handlers tried without a server."""

import json
import os
import subprocess
import sys
import tarfile
import zipfile

import pytest

from conftest import SDK

SOURCE = """
import logging, os
from zoo_handler import Handler, Response
class Upper(Handler):
    def load(self, context):
        self.suffix = context.model_yaml_config.get("suffix", "") + open("extra.txt").read()
        logging.info("loaded from %s", os.getcwd())
    def predict_one(self, request):
        if request.text == "exit":
            raise SystemExit(7)
        if request.text == "stream":
            return Response(iter(["a", "b"]), content_type="text/plain")
        if request.text == "large":
            return "x" * 300000
        return Response(request.text.upper() + self.suffix, 201, content_type="text/plain")
"""
MANIFEST = {"model": {"modelName": "upper", "modelVersion": "2.0", "handler": "h.py", "configFile": "c.yaml"}}


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    (folder / "MAR-INF").mkdir(parents=True)
    (folder / "h.py").write_text(SOURCE)
    (folder / "extra.txt").write_text("!")
    (folder / "c.yaml").write_text(json.dumps({"suffix": "?"}))
    (folder / "MAR-INF" / "MANIFEST.json").write_text(json.dumps(MANIFEST))
    (tmp_path / "request.txt").write_text("hello")
    return folder


def run(*arguments, stdin=""):
    return subprocess.run(
        [sys.executable, "-m", "zoo_handler", "test", *map(str, arguments)],
        input=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        universal_newlines=True,
        env={**os.environ, "PYTHONPATH": SDK},
        timeout=60,
    )


def packed(model, kind):
    if kind == "folder":
        return model
    path = model.parent / "upper.{}".format(kind)
    if kind == "mar":
        with zipfile.ZipFile(path, "w") as archive:
            for file in model.rglob("*"):
                archive.write(file, file.relative_to(model))
    else:
        with tarfile.open(path, "w:gz") as archive:
            archive.add(model, "upper" if kind == "tar.gz" else ".")
    return path


@pytest.mark.parametrize("kind", ["folder", "mar", "tar.gz", "tgz"])
def test_an_archive_or_a_folder(model, kind):
    result = run(packed(model, kind), "--request", model.parent / "request.txt", "--verbose")
    assert (result.returncode, result.stdout) == (0, "HELLO?!"), result.stderr
    assert "status 201" in result.stderr and "content-type: text/plain" in result.stderr
    assert "loaded from " in result.stderr
    assert os.listdir(str(model.parent)).count("model") == 1


def test_standard_input_streams_and_large_answers(model):
    result = run(model, "--request", "-", stdin="stream")
    assert (result.returncode, result.stdout) == (0, "ab")
    assert "streamed" in result.stderr
    assert run(model, stdin="large").stdout == "x" * 300000


def test_several_requests_are_one_batch_and_a_failure_is_the_exit_status(model):
    bad = model.parent / "bad.bin"
    bad.write_bytes(b"\xff")
    result = run(model, "--request", model.parent / "request.txt", "--request", bad)
    assert result.returncode == 1
    assert result.stdout.startswith("HELLO?!The body is not UTF-8")
    assert "status 201" in result.stderr and "status 400" in result.stderr


def test_a_handler_for_torchserve(tmp_path):
    (tmp_path / "h.py").write_text(
        "def handle(data, context):\n"
        "    return data and [[row['body'], context.get_request_header(i, 'x-a')] for i, row in enumerate(data)]\n"
    )
    (tmp_path / "r.json").write_text('{"a": 1}')
    result = run(tmp_path, "--handler", "h.py", "--request", tmp_path / "r.json", "--header", "X-A: b")
    assert json.loads(result.stdout) == [{"a": 1}, "b"]


def test_what_can_not_be_loaded(model):
    result = run(model, "--handler", "nothing.py")
    assert result.returncode == 2
    assert "error: No module named 'nothing'" in result.stderr
    (model.parent / "not.mar").write_text("text")
    result = run(model.parent / "not.mar")
    assert result.returncode == 2
    assert "neither a folder nor a .mar nor a .tar.gz" in result.stderr
    assert run(model.parent / "absent.mar").returncode == 2


def test_sys_exit_of_a_handler(model):
    assert run(model, stdin="exit").returncode == 7
