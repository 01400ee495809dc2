"""Language models on vLLM, with OpenAI's API: `v1/completions`, `v1/chat/completions`, `v1/models`.

The archive needs no handler file of its own. Its model-config.yaml says, under `handler`: `model_path` (below
the model directory, or a name of the Hugging Face hub), `vllm_engine_config` (arguments of vLLM's engine),
`adapters` (name → path of a LoRA adapter). It needs `asyncCommunication: true`.
"""

import logging
import os
import time
from typing import Any, AsyncIterator, Dict, List

from ts.handler_utils.openai import (
    CHAT,
    COMPLETIONS,
    MODELS,
    Completion,
    Piece,
    model_list,
    parse_request,
    sampling_of,
)
from ts.utils.util import PredictionException

from .base_handler import BaseHandler

logger = logging.getLogger(__name__)


class VLLMHandler(BaseHandler):
    """Gives each request to the engine at once; the engine batches."""

    def __init__(self) -> None:
        super().__init__()
        self.vllm_engine: Any = None
        self.model_name = ""
        self.adapters: Dict[str, str] = {}
        self._sampling: Any = None
        self._lora: Dict[str, Any] = {}

    def initialize(self, ctx: Any) -> None:
        """Reads the configuration and starts the engine."""
        section = ctx.model_yaml_config.get("handler")
        if not isinstance(section, dict) or not section.get("model_path"):
            raise ValueError(
                "model {}: model-config.yaml must name handler.model_path".format(ctx.model_name)
            )
        self.context = ctx
        engine_config = dict(section.get("vllm_engine_config") or {})
        self.adapters = dict(section.get("adapters") or {})
        names = engine_config.pop("served_model_name", None) or [ctx.model_name]
        self.model_name = names if isinstance(names, str) else names[0]
        if self.adapters:
            engine_config.setdefault("enable_lora", True)

        vllm = _require_vllm(ctx.model_name)
        model_path = _in_model_dir(ctx, section["model_path"])
        self._sampling = vllm.SamplingParams
        self._lora = self._make_adapters(ctx)
        arguments = vllm.AsyncEngineArgs(model=model_path, **engine_config)
        self.vllm_engine = vllm.AsyncLLMEngine.from_engine_args(arguments)
        self.initialized = True

    def _make_adapters(self, ctx: Any) -> Dict[str, Any]:
        if not self.adapters:
            return {}
        from vllm.lora.request import LoRARequest

        return {
            name: LoRARequest(name, number, _in_model_dir(ctx, path))
            for number, (name, path) in enumerate(self.adapters.items(), 1)
        }

    async def handle(self, data: List[Any], context: Any) -> List[Any]:
        """Answers one request: an object, or events as they come."""
        if len(data) != 1:
            raise ValueError("VLLMHandler takes one request at a time: set asyncCommunication: true")
        started = time.perf_counter()
        path = (context.get_request_header(0, "url_path") or COMPLETIONS).strip("/")
        if path == MODELS:
            answer: Any = model_list([self.model_name] + list(self.adapters))
        elif path in (COMPLETIONS, CHAT):
            answer = await self._complete(parse_request(data[0]), path == CHAT, context)
        else:
            raise PredictionException(
                "there is nothing at {}: {}, {} or {}".format(path, COMPLETIONS, CHAT, MODELS), 404
            )
        context.metrics.add_time("HandlerTime", round((time.perf_counter() - started) * 1000, 2), None, "ms")
        return [answer]

    async def _complete(self, request: Dict[str, Any], is_chat: bool, context: Any) -> Any:
        model = request.get("model") or self.model_name
        if model != self.model_name and model not in self.adapters:
            raise PredictionException("The model `{}` does not exist.".format(model), 404)
        prompt = await self._prompt(request, is_chat)
        try:
            sampling = self._sampling(**sampling_of(request))
        except (TypeError, ValueError) as cause:
            raise PredictionException(str(cause), 400) from cause
        pieces = self._pieces(prompt, sampling, context.get_request_id(0), self._lora.get(model))
        completion = Completion(request, model, is_chat)
        if not request.get("stream"):
            return await completion.whole(pieces)
        context.set_response_content_type(0, "text/event-stream")
        return completion.events(pieces)

    async def _prompt(self, request: Dict[str, Any], is_chat: bool) -> Any:
        if not is_chat:
            prompt = request.get("prompt")
            if isinstance(prompt, list) and prompt and isinstance(prompt[0], int):
                return {"prompt_token_ids": prompt}
            if not isinstance(prompt, str):
                raise PredictionException("`prompt` must be text or a list of token ids", 400)
            return prompt
        messages = request.get("messages")
        if not isinstance(messages, list) or not messages:
            raise PredictionException("`messages` must be a list of messages", 400)
        tokenizer = await self.vllm_engine.get_tokenizer()
        return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)

    async def _pieces(self, prompt: Any, sampling: Any, request_id: str, lora: Any) -> AsyncIterator[Piece]:
        """What is new in each of the engine's outputs, which repeat all text from its beginning."""
        shown: Dict[int, int] = {}
        async for output in self.vllm_engine.generate(prompt, sampling, request_id, lora_request=lora):
            for choice in output.outputs:
                start = shown.get(choice.index, 0)
                text = choice.text[start:]
                if not text and choice.finish_reason is None:
                    continue
                shown[choice.index] = start + len(text)
                yield Piece(
                    choice.index,
                    text,
                    choice.finish_reason,
                    len(output.prompt_token_ids or ()),
                    len(choice.token_ids),
                )


def _require_vllm(model: str) -> Any:
    try:
        import vllm
    except ImportError as cause:
        raise RuntimeError(
            "model {}: needs the Python package vllm, which can't be imported: {}".format(model, cause)
        ) from cause
    return vllm


def _in_model_dir(ctx: Any, path: str) -> str:
    """A path below the model directory, if there is something, else what it was: a name of the hub."""
    below = os.path.join(ctx.system_properties.get("model_dir"), path)
    return below if os.path.exists(below) else path
