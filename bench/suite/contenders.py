"""The servers that are compared: how each is prepared, started with one worker, and given the no-op."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple

from . import BenchError
from .environments import PEERS, environment, pinned_version
from .processes import Server, ask, free_port

ANSWER = "ok"
# Long enough that a full batch never waits for it, so it doesn't show where all clients are always waiting.
BATCH_WAIT_MS = 10
QUEUE_SIZE = 1024


class Running(NamedTuple):
    """A server that answers the no-op."""

    server: Server
    url: str


class Contender:
    """One row of the table."""

    name = ""
    batches = True

    def prepare(self) -> str:
        """Installs what is missing; returns the version."""
        raise NotImplementedError

    def start(self, batch_size: int, folder: Path) -> "contextlib.AbstractContextManager[Running]":
        """A server with one worker, its files in `folder`, until the context is left."""
        raise NotImplementedError


def is_answered(running: Running) -> Running:
    """The server again, after one request got the answer that the load generator will expect."""
    status, text = ask("POST", running.url, b"0")
    if (status, text) != (200, ANSWER):
        raise running.server.error(
            f"answered {status} {' '.join(text.split())!r} to the no-op instead of {ANSWER!r}"
        )
    return running


class Floor(Contender):
    """The HTTP stack with nothing behind it."""

    name = "floor (bare axum, no worker)"
    batches = False

    def __init__(self, bench: Path) -> None:
        self.bench = bench

    def prepare(self) -> str:
        return version_of([str(self.bench), "--version"])

    @contextlib.contextmanager
    def start(self, batch_size: int, folder: Path) -> Iterator[Running]:
        address = f"127.0.0.1:{free_port()}"
        with Server(self.name, [self.bench, "floor", "--address", address], folder) as server:
            server.wait_until_answers(f"http://{address}/")
            yield is_answered(Running(server, f"http://{address}/predictions/noop"))


class Mosec(Contender):
    """mosec: an HTTP server in Rust before Python workers."""

    name = "mosec"

    def prepare(self) -> str:
        self.python = environment("mosec")
        return pinned_version("mosec")

    @contextlib.contextmanager
    def start(self, batch_size: int, folder: Path) -> Iterator[Running]:
        port = free_port()
        command = [
            self.python,
            PEERS / "mosec" / "noop.py",
            "--address",
            "127.0.0.1",
            "--port",
            str(port),
            "--path",
            folder / "sockets",
            "--capacity",
            str(QUEUE_SIZE),
            "--log-level",
            "warning",
        ]
        batching = {"BENCH_BATCH_SIZE": str(batch_size), "BENCH_BATCH_WAIT_MS": str(BATCH_WAIT_MS)}
        with Server(self.name, command, folder, batching) as server:
            url = f"http://127.0.0.1:{port}/inference"
            server.wait_until_answers(url, b"0")
            yield is_answered(Running(server, url))


class ArchiveServer(Contender):
    """A server that is given its model as an archive through TorchServe's management interface."""

    handler = "noop_function.py"

    def command(self, addresses: Dict[str, str], folder: Path) -> List[object]:
        """How to start the server with these addresses and the model store `folder/store`."""
        raise NotImplementedError

    def environment(self, folder: Path) -> Dict[str, str]:
        """What the server needs beside the environment of this process."""
        return {}

    @contextlib.contextmanager
    def start(self, batch_size: int, folder: Path) -> Iterator[Running]:
        (folder / "store").mkdir()
        write_archive(folder / "store" / "noop.mar", PEERS / "handlers" / self.handler)
        addresses = {
            name: f"http://127.0.0.1:{free_port()}" for name in ("inference", "management", "metrics")
        }
        with Server(self.name, self.command(addresses, folder), folder, self.environment(folder)) as server:
            server.wait_until_answers(f"{addresses['inference']}/ping")
            status, text = ask(
                "POST",
                f"{addresses['management']}/models?url=noop.mar&initial_workers=1&synchronous=true"
                f"&batch_size={batch_size}&max_batch_delay={BATCH_WAIT_MS}",
            )
            if status != 200:
                raise server.error(f"refused the no-op model with {status} {' '.join(text.split())!r}")
            yield is_answered(Running(server, f"{addresses['inference']}/predictions/noop"))


class TorchServe(ArchiveServer):
    """TorchServe, with every log that is written per request switched off."""

    name = "TorchServe"

    def prepare(self) -> str:
        self.python = environment("torchserve", modules=["torch.py"])
        java = os.path.join(os.environ["JAVA_HOME"], "bin", "java") if "JAVA_HOME" in os.environ else "java"
        if shutil.which(java) is None:
            raise BenchError(f"TorchServe needs a Java runtime (11 or later) and there is no {java}")
        return f"{pinned_version('torchserve')}, {version_of([java, '-version'])}"

    def environment(self, folder: Path) -> Dict[str, str]:
        # Its PID file goes to TMPDIR and its workers' sockets to TEMP, under names that all instances share.
        return {
            "TMPDIR": str(folder),
            "TEMP": str(folder),
            "LOG_LOCATION": str(folder),
            "METRICS_LOCATION": str(folder),
        }

    def command(self, addresses: Dict[str, str], folder: Path) -> List[object]:
        settings = {f"{name}_address": address for name, address in addresses.items()}
        settings.update(
            {
                "grpc_inference_port": str(free_port()),
                "grpc_management_port": str(free_port()),
                "disable_token_authorization": "true",
                "enable_model_api": "true",
                "default_workers_per_model": "1",
                "job_queue_size": str(QUEUE_SIZE),
                "async_logging": "true",
                "disable_system_metrics": "true",
            }
        )
        (folder / "config.properties").write_text(
            "".join(f"{key}={value}\n" for key, value in settings.items())
        )
        return [
            self.python.parent / "torchserve",
            "--start",
            "--foreground",
            "--no-config-snapshots",
            "--model-store",
            folder / "store",
            "--ts-config",
            folder / "config.properties",
            "--log-config",
            PEERS / "torchserve" / "log4j2.xml",
        ]


class Zoo(ArchiveServer):
    """This project's server, as it is by default but for the addresses and the access log, which is off as everywhere here."""

    def __init__(self, binary: Path, style: str, handler: str) -> None:
        self.binary = binary
        self.name = f"Zoo, {style}"
        self.handler = handler

    def prepare(self) -> str:
        if not self.binary.is_file():
            raise BenchError(f"{self.binary} doesn't exist; give zoo-server's path with --zoo, or build it")
        return version_of([str(self.binary), "--version"])

    def command(self, addresses: Dict[str, str], folder: Path) -> List[object]:
        return [
            self.binary,
            "--inference-address",
            addresses["inference"],
            "--management-address",
            addresses["management"],
            "--metrics-address",
            "127.0.0.1:0",
            "--model-store",
            folder / "store",
            "--cache-dir",
            folder / "cache",
        ]

    def environment(self, folder: Path) -> Dict[str, str]:
        return {"ZOO_LOG": "warn"}


def write_archive(path: Path, handler: Path) -> None:
    """The smallest archive that TorchServe takes: a manifest and the handler."""
    manifest = {
        "runtime": "python",
        "archiverVersion": "0.12.0",
        "model": {"modelName": "noop", "modelVersion": "1.0", "handler": handler.name},
    }
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest, indent=2))
        archive.write(handler, handler.name)


def version_of(command: List[str]) -> str:
    """What a program says of its version, in a few words."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    line = (done.stdout.strip().splitlines() or [""])[0]
    if done.returncode != 0:
        raise BenchError(f"{' '.join(command)} ended with status {done.returncode}: {line}")
    return re.sub(r'[" ]+', " ", line).strip()
