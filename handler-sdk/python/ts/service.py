"""Calls of a handler as TorchServe's worker makes them, for tests and tools that drive handlers by
themselves.

The server's own workers use `zoo_handler.service`; what a handler sees, and how its failures are named, is
the same.
"""

import logging
import time
from typing import Any, Callable, Dict, Iterable, List, Optional, Tuple

from ts.protocol.otf_message_handler import create_predict_response
from zoo_handler import TORCHSERVE_VERSION
from zoo_handler.answer import failure_of
from zoo_handler.context import Context, RequestProcessor

logger = logging.getLogger(__name__)


class Service:
    """A handler's entry point and its context."""

    def __init__(
        self,
        model_name: str,
        model_dir: str,
        manifest: Dict[str, Any],
        entry_point: Callable[[Any, Any], Any],
        gpu: Optional[int],
        batch_size: int,
        limit_max_image_pixels: bool = True,
        metrics_cache: Any = None,
        model_yaml_config: Optional[Dict[str, Any]] = None,
    ) -> None:
        self._context = Context(
            model_name,
            model_dir,
            manifest,
            batch_size,
            gpu,
            TORCHSERVE_VERSION,
            limit_max_image_pixels,
            metrics_cache,
            model_yaml_config,
        )
        self._context._streamer = self._send_intermediate
        self._entry_point = entry_point

    @property
    def context(self) -> Context:
        """What the handler gets as its second argument."""
        return self._context

    def set_cl_socket(self, cl_socket: Any) -> None:
        """Where intermediate answers go."""
        self._context.cl_socket = cl_socket

    @staticmethod
    def retrieve_data_for_inference(
        batch: Optional[List[Dict[str, Any]]],
    ) -> Tuple[List[RequestProcessor], List[Dict[str, Any]], Dict[int, str]]:
        """From messages of the frontend to headers, the handler's `data`, and index → request id."""
        if batch is None:
            raise ValueError("Received invalid inputs")
        headers, data, request_ids = [], [], {}
        for index, request in enumerate(batch):
            request_ids[index] = request["requestId"].decode("utf-8")
            header = {
                pair["name"].decode("utf-8"): pair["value"].decode("utf-8")
                for pair in request.get("headers", [])
            }
            row = {}
            for parameter in request["parameters"]:
                row[parameter["name"]] = parameter["value"]
                header[parameter["name"]] = {"content-type": parameter["contentType"]}
            headers.append(RequestProcessor(header))
            data.append(row)
        return headers, data, request_ids

    def prepare(self, batch: List[Dict[str, Any]]) -> List[Dict[str, Any]]:
        """Makes a batch the current one, and gives the handler's `data`."""
        context = self._context
        context.request_processor, data, context.request_ids = self.retrieve_data_for_inference(batch)
        context.metrics.set_request_ids(context.request_ids)
        return data

    def predict(self, batch: List[Dict[str, Any]]) -> bytearray:
        """Answers a batch of messages with a frame of answers."""
        data = self.prepare(batch)
        context = self._context
        request_ids = dict(context.request_ids)
        started = time.perf_counter()
        try:
            answers = self._entry_point(data, context)
        except Exception as cause:
            code, message = failure_of(cause)
            return create_predict_response(None, request_ids, message, code)
        problem = self.problem_of(answers, len(request_ids))
        if problem is not None:
            return create_predict_response(None, request_ids, problem, 503)
        elapsed = round((time.perf_counter() - started) * 1000, 2)
        context.metrics.add_time("PredictionTime", elapsed, None, "ms")
        return create_predict_response(answers, request_ids, "Prediction success", 200, context)

    def problem_of(self, answers: Any, expected: int) -> Optional[str]:
        """What is wrong with what a handler returned, if anything."""
        name = self._context.model_name
        if not isinstance(answers, list):
            logger.warning("model: %s, Invalid return type: %s.", name, type(answers))
            return "Invalid model predict output"
        if len(answers) != expected:
            text = "model: %s, number of batch response mismatched, expect: %d, got: %d."
            logger.warning(text, name, expected, len(answers))
            return "number of batch response mismatched"
        return None

    def _send_intermediate(self, ret: Any, message: str, code: int, context: Context) -> None:
        if context.cl_socket is None:
            raise RuntimeError("send_intermediate_predict_response: no connection was given to set_cl_socket")
        frame = create_predict_response(ret, dict(context.request_ids), message, code, context, True)
        context.cl_socket.sendall(frame)


def emit_metrics(metrics: Iterable[Any]) -> None:
    """Prints metrics of the older API in the form that the server reads from a worker's output."""
    for metric in metrics or ():
        print("[METRICS]{}".format(metric), flush=True)
