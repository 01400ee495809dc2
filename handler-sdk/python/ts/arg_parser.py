"""The command lines of TorchServe: that of the server and that of its workers."""

import argparse
from typing import Any, List, Optional


class ArgParser:
    """Makes the parsers."""

    @staticmethod
    def ts_parser() -> argparse.ArgumentParser:
        """The parser of `torchserve`."""
        parser = argparse.ArgumentParser(prog="torchserve", description="Model Server for PyTorch")
        action = parser.add_mutually_exclusive_group()
        action.add_argument("-v", "--version", action="store_true", help="print the version")
        action.add_argument("--start", action="store_true", help="start the server, which is the default")
        action.add_argument("--stop", action="store_true", help="stop the server")
        parser.add_argument("--ts-config", help="configuration file")
        parser.add_argument("--model-store", help="directory of archives")
        parser.add_argument("--workflow-store", help="directory of workflow archives")
        parser.add_argument("--models", metavar="MODEL", nargs="+", help="[NAME=]ARCHIVE, or all")
        parser.add_argument("--log-config", help="configuration file of logs")
        parser.add_argument("--cpp-log-config", help="configuration file of logs of the C++ backend")
        parser.add_argument("--foreground", action="store_true", help="wait for the server")
        parser.add_argument(
            "--no-config-snapshots", "--ncs", action="store_true", help="neither write nor read snapshots"
        )
        parser.add_argument("--plugins-path", "--ppath", help="directory of plugins")
        parser.add_argument("--disable-token-auth", "--dt", action="store_true", help="ask for no tokens")
        parser.add_argument("--enable-model-api", action="store_true", help="allow models to be registered")
        return parser

    @staticmethod
    def model_service_worker_args() -> argparse.ArgumentParser:
        """The parser of a worker."""
        parser = argparse.ArgumentParser(
            prog="model-server-worker", description="Worker of TorchServe's protocol"
        )
        parser.add_argument("--sock-type", required=True, choices=["unix", "tcp"])
        parser.add_argument("--sock-name", help="path of the socket, if it is of type unix")
        parser.add_argument("--host", help="address, if the socket is of type tcp")
        parser.add_argument("--port", help="port, if the socket is of type tcp")
        parser.add_argument("--metrics-config", help="configuration file of metrics")
        parser.add_argument(
            "--async", dest="async_comm", action="store_true", help="the handler is a coroutine"
        )
        return parser

    @staticmethod
    def extract_args(args: Optional[List[str]] = None) -> Any:
        """Parses a command line of `torchserve`."""
        return ArgParser.ts_parser().parse_args(args)
