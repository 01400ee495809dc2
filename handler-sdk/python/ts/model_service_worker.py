"""A worker that speaks TorchServe's protocol: it listens, a frontend connects, and it serves that one
connection.

`zoo-server` starts workers of its own protocol (`zoo_handler.worker`); this one is for frontends and tests
that speak TorchServe's.
"""

import logging
import os
import socket
import sys
from typing import Any, Dict, Optional, Tuple

from ts.arg_parser import ArgParser
from ts.async_service import AsyncService
from ts.metrics.metric_cache_yaml_impl import MetricsCacheYamlImpl
from ts.model_loader import ModelLoaderFactory
from ts.protocol.otf_message_handler import (
    LOAD_MSG,
    create_load_model_response,
    retrieve_msg,
)
from ts.service import Service

logger = logging.getLogger(__name__)

SOCKET_ACCEPT_TIMEOUT = 30.0  # seconds


class TorchModelServiceWorker:
    """Listens on a Unix socket (`s_name`) or on a TCP port, both raised by the rank of a parallel worker."""

    def __init__(
        self,
        s_type: Optional[str] = None,
        s_name: Optional[str] = None,
        host_addr: Optional[str] = None,
        port_num: Optional[int] = None,
        metrics_config: Optional[str] = None,
        async_comm: bool = False,
    ) -> None:
        rank = int(os.environ.get("LOCAL_RANK", "0"))
        self.sock_type = s_type
        self.async_comm = async_comm
        self.metrics_cache = MetricsCacheYamlImpl(metrics_config)
        self.service: Optional[Service] = None
        if s_type == "unix":
            if not s_name:
                raise ValueError("Wrong arguments passed. No socket name given.")
            prefix, dot, number = s_name.rpartition(".")
            self.sock_name = "{}{}{}".format(prefix, dot, int(number) + rank) if number.isdigit() else s_name
            if os.path.exists(self.sock_name):
                os.remove(self.sock_name)
            self.address: Any = self.sock_name
            family = socket.AF_UNIX
        elif s_type == "tcp":
            if port_num is None:
                raise ValueError("Wrong arguments passed. No socket port given.")
            self.sock_name = host_addr or "127.0.0.1"
            self.address = (self.sock_name, int(port_num) + rank)
            family = socket.AF_INET
        else:
            raise ValueError("Incomplete data provided: the socket type must be unix or tcp")
        self.sock = socket.socket(family, socket.SOCK_STREAM)

    def load_model(self, load_model_request: Dict[str, Any]) -> Tuple[Optional[Service], str, int]:
        """Loads what a request names: `(service, message, code)`."""
        request = load_model_request
        name = request["modelName"].decode("utf-8")
        try:
            service = ModelLoaderFactory.get_model_loader().load(
                name,
                request["modelPath"].decode("utf-8"),
                request["handler"].decode("utf-8"),
                request["gpu"],
                int(request["batchSize"]),
                request["envelope"].decode("utf-8") if request["envelope"] else None,
                request["limitMaxImagePixels"],
                self.metrics_cache,
            )
        except MemoryError:
            logger.exception("Load model %s: out of memory", name)
            return None, "System out of memory", 507
        except RuntimeError as cause:
            logger.exception("Load model %s failed", name)
            return (
                (None, "System out of memory", 507)
                if "CUDA" in str(cause)
                else (None, "Unknown exception", 500)
            )
        logger.debug("Model %s loaded.", name)
        return service, "loaded model {}".format(name), 200

    def handle_connection(self, cl_socket: socket.socket) -> None:
        """Serves a connection until its other end is closed."""
        while True:
            try:
                command, message = retrieve_msg(cl_socket)
            except OSError:
                logger.info("Frontend disconnected.")
                return
            if command == LOAD_MSG:
                service, result, code = self.load_model(message)
                cl_socket.sendall(create_load_model_response(code, result))
                if service is not None:
                    service.set_cl_socket(cl_socket)
                    self.service = service
                    if self.async_comm:
                        AsyncService(service).run()
                        return
            elif self.service is None:
                raise RuntimeError("a batch came before a model was loaded")
            else:
                cl_socket.sendall(self.service.predict(message))

    def run_server(self) -> None:
        """Waits for the frontend, and serves it."""
        self.sock.bind(self.address)
        self.sock.listen(1)
        self.sock.settimeout(SOCKET_ACCEPT_TIMEOUT)
        logger.info("Listening on port: %s", self.sock_name)
        logger.info("[PID]%d", os.getpid())
        logger.info("Torch worker started.")
        logger.info("Python runtime: %s", sys.version.split()[0])
        try:
            cl_socket, _ = self.sock.accept()
        except socket.timeout:
            raise TimeoutError(
                "Backend worker did not receive connection in: {:.0f}".format(SOCKET_ACCEPT_TIMEOUT)
            ) from None
        with cl_socket:
            cl_socket.setblocking(True)
            self.handle_connection(cl_socket)


def main() -> None:
    """The command line of a worker."""
    logging.basicConfig(stream=sys.stdout, format="%(message)s", level=logging.INFO)
    args = ArgParser.model_service_worker_args().parse_args()
    worker = None
    try:
        worker = TorchModelServiceWorker(
            args.sock_type, args.sock_name, args.host, args.port, args.metrics_config, args.async_comm
        )
        worker.run_server()
    except Exception:
        logger.exception("Backend worker process died.")
        sys.exit(1)
    finally:
        if worker is not None and worker.sock_type == "unix" and os.path.exists(worker.sock_name):
            os.remove(worker.sock_name)


if __name__ == "__main__":
    main()
