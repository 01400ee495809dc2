"""`pip install handler-sdk/python`, without a network, into an environment of its own."""

import os
import shutil
import subprocess
import sys

import pytest

from conftest import SDK

SKIPPED = shutil.ignore_patterns("tests", "__pycache__", "build", "*.egg-info")


def run(*command, **options):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)
    assert done.returncode == 0, "{}\n{}".format(command, done.stdout.decode())
    return done.stdout.decode()


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The interpreter of an environment with the SDK, which sees this one's packages, but not the source tree."""
    setuptools = pytest.importorskip("setuptools", reason="building a package needs setuptools")
    if int(setuptools.__version__.partition(".")[0]) < 61:
        pytest.skip("setuptools {} can't read pyproject.toml".format(setuptools.__version__))
    home = tmp_path_factory.mktemp("install")
    source = home / "source"
    shutil.copytree(SDK, source, ignore=SKIPPED)  # building writes into the tree
    packages = os.path.dirname(os.path.dirname(setuptools.__file__))
    environment = home / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", environment)
    python = environment / "bin" / "python"
    site = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    pip = (
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
    )
    run(*pip, "--disable-pip-version-check", "--target", site, source)
    with open(os.path.join(site, "packages-for-handlers.pth"), "w") as file:
        file.write(packages + "\n")
    return python


def test_packages_are_importable(installed, tmp_path):
    code = (
        "import sys, zoo_handler, zoo_worker, ts, ts.context, model_archiver, model_archiver.model_packaging\n"
        "import ts.handler_utils.micro_batching, ts.metrics.metric_cache_yaml_impl, ts.launcher\n"
        "import ts.protocol.otf_message_handler, ts.torch_handler.request_envelope.kserve\n"
        "assert all(module.__file__.startswith(sys.prefix) for module in (zoo_handler, ts, model_archiver))\n"
        "print(ts.__version__, ts.context.Context.__name__)\n"
    )
    version, name = run(installed, "-c", code, cwd=str(tmp_path)).split()
    assert version[0].isdigit()
    assert name == "Context"


def test_all_files_are_installed(installed):
    prefix = run(
        installed, "-c", "import ts, os; print(os.path.dirname(os.path.dirname(ts.__file__)))"
    ).strip()
    missing = []
    for package in ("zoo_handler", "ts", "model_archiver"):
        for folder, _, files in os.walk(os.path.join(SDK, package)):
            for file in files:
                name = os.path.relpath(os.path.join(folder, file), SDK)
                if "__pycache__" not in name and not os.path.exists(os.path.join(prefix, name)):
                    missing.append(name)
    assert not missing


def test_trying_a_handler_without_a_server(installed, examples, tmp_path):
    pytest.importorskip("torchvision")
    folder = os.path.join(examples, "greedy_time")
    command = [
        installed,
        "-m",
        "zoo_handler",
        "test",
        folder,
        "--request",
        os.path.join(folder, "request.json"),
    ]
    done = subprocess.run(
        command + ["--handler", "handler.py", "--model-file", "model.py"],
        cwd=str(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert done.returncode == 0, done.stderr.decode()
    with open(os.path.join(folder, "expected.json"), "rb") as file:
        assert done.stdout.endswith(file.read())
