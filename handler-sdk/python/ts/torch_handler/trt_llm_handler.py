"""Language models on TensorRT-LLM.

The archive's model-config.yaml says, under `handler`: `model_path` (an engine or a model, below the model
directory or on the Hugging Face hub) and `trt_llm_engine_config` (arguments of TensorRT-LLM's `LLM`). It
needs `asyncCommunication: true`. A request is an object with `prompt`, sampling parameters and `streaming`;
the answer is text.
"""

import os
import time
from typing import Any, AsyncIterator, Dict, List

from ts.handler_utils.openai import parse_request, sampling_of
from ts.utils.util import PredictionException

from .base_handler import BaseHandler


class TRTLLMHandler(BaseHandler):
    """Gives each request to the engine at once; the engine batches."""

    def __init__(self) -> None:
        super().__init__()
        self.trt_llm_engine: Any = None
        self._sampling: Any = None

    def initialize(self, ctx: Any) -> None:
        """Reads the configuration and starts the engine."""
        section = ctx.model_yaml_config.get("handler")
        if not isinstance(section, dict) or not section.get("model_path"):
            raise ValueError(
                "model {}: model-config.yaml must name handler.model_path".format(ctx.model_name)
            )
        self.context = ctx
        try:
            import tensorrt_llm
        except ImportError as cause:
            raise RuntimeError(
                "model {}: needs the Python package tensorrt_llm, which can't be imported: {}".format(
                    ctx.model_name, cause
                )
            ) from cause
        below = os.path.join(ctx.system_properties.get("model_dir"), section["model_path"])
        model = below if os.path.exists(below) else section["model_path"]
        self._sampling = tensorrt_llm.SamplingParams
        self.trt_llm_engine = tensorrt_llm.LLM(model=model, **(section.get("trt_llm_engine_config") or {}))
        self.initialized = True

    async def handle(self, data: List[Any], context: Any) -> List[Any]:
        """Answers one request: its text, or pieces of it as they come."""
        if len(data) != 1:
            raise ValueError("TRTLLMHandler takes one request at a time: set asyncCommunication: true")
        started = time.perf_counter()
        request = parse_request(data[0])
        prompt = request.get("prompt")
        if not isinstance(prompt, str):
            raise PredictionException("`prompt` must be text", 400)
        pieces = self._pieces(prompt, self._sampling_params(request), bool(request.get("streaming")))
        answer: Any = pieces
        if not request.get("streaming"):
            answer = "".join([piece async for piece in pieces])
        context.metrics.add_time("HandlerTime", round((time.perf_counter() - started) * 1000, 2), None, "ms")
        return [answer]

    def _sampling_params(self, request: Dict[str, Any]) -> Any:
        chosen = sampling_of(request)
        if "max_new_tokens" in request:
            chosen["max_tokens"] = request["max_new_tokens"]
        try:
            return self._sampling(**chosen)
        except (TypeError, ValueError) as cause:
            raise PredictionException(str(cause), 400) from cause

    async def _pieces(self, prompt: str, sampling: Any, streaming: bool) -> AsyncIterator[str]:
        """What is new in each of the engine's outputs, which repeat all text from its beginning."""
        shown = 0
        async for output in self.trt_llm_engine.generate_async(prompt, sampling, streaming=streaming):
            text = output.outputs[0].text
            if len(text) > shown:
                yield text[shown:]
                shown = len(text)
