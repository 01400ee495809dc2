"""OpenAI's completion API, as far as an engine that makes text needs it: requests in, JSON objects and events
out.

This module knows no engine.
"""

import json
import time
import uuid
from typing import Any, AsyncIterator, Dict, List, NamedTuple, Optional

from zoo_handler.errors import PredictionException

COMPLETIONS = "v1/completions"
CHAT = "v1/chat/completions"
MODELS = "v1/models"

# What an engine's sampling parameters are called in requests; anything else in a request is not for sampling.
SAMPLING = (
    "frequency_penalty",
    "ignore_eos",
    "max_tokens",
    "min_p",
    "min_tokens",
    "n",
    "presence_penalty",
    "repetition_penalty",
    "seed",
    "skip_special_tokens",
    "stop",
    "stop_token_ids",
    "temperature",
    "top_k",
    "top_p",
)


class Piece(NamedTuple):
    """New text of one choice. `finish_reason` is set with its last piece, the counts are those up to now."""

    index: int
    text: str
    finish_reason: Optional[str]
    prompt_tokens: int
    completion_tokens: int


def parse_request(row: Dict[str, Any]) -> Dict[str, Any]:
    """The JSON object that a request carries."""
    body = row.get("data")
    if body is None:
        body = row.get("body")
    if isinstance(body, (bytes, bytearray, str)):
        try:
            body = json.loads(body)
        except ValueError as cause:
            raise PredictionException("the body is not JSON: {}".format(cause), 400) from cause
    if not isinstance(body, dict):
        raise PredictionException("the body must be a JSON object", 400)
    return body


def sampling_of(request: Dict[str, Any]) -> Dict[str, Any]:
    """The sampling parameters of a request."""
    chosen = {key: request[key] for key in SAMPLING if request.get(key) is not None}
    if "max_completion_tokens" in request:
        chosen["max_tokens"] = request["max_completion_tokens"]
    return chosen


class Completion:
    """One request on its way to being answered."""

    def __init__(self, request: Dict[str, Any], model: str, is_chat: bool) -> None:
        self._request = request
        self._model = model
        self._is_chat = is_chat
        self._head = {
            "id": ("chatcmpl-" if is_chat else "cmpl-") + uuid.uuid4().hex,
            "created": int(time.time()),
            "model": model,
        }

    async def whole(self, pieces: AsyncIterator[Piece]) -> Dict[str, Any]:
        """All text in one object."""
        texts: Dict[int, List[str]] = {}
        reasons: Dict[int, Optional[str]] = {}
        tokens: Dict[int, int] = {}
        prompt = 0
        async for piece in pieces:
            texts.setdefault(piece.index, []).append(piece.text)
            reasons[piece.index] = piece.finish_reason
            tokens[piece.index] = piece.completion_tokens
            prompt = piece.prompt_tokens
        choices = [self._choice(index, "".join(texts[index]), reasons[index]) for index in sorted(texts)]
        usage = _usage(prompt, sum(tokens.values()))
        kind = "chat.completion" if self._is_chat else "text_completion"
        return dict(self._head, object=kind, choices=choices, usage=usage)

    async def events(self, pieces: AsyncIterator[Piece]) -> AsyncIterator[str]:
        """Server-sent events, one for each piece of text, and the word that ends them."""
        kind = "chat.completion.chunk" if self._is_chat else "text_completion"
        tokens: Dict[int, int] = {}
        prompt = 0
        begun = set()
        async for piece in pieces:
            first = piece.index not in begun
            begun.add(piece.index)
            tokens[piece.index] = piece.completion_tokens
            prompt = piece.prompt_tokens
            yield _event(dict(self._head, object=kind, choices=[self._delta(piece, first)]))
        if (self._request.get("stream_options") or {}).get("include_usage"):
            yield _event(
                dict(self._head, object=kind, choices=[], usage=_usage(prompt, sum(tokens.values())))
            )
        yield "data: [DONE]\n\n"

    def _choice(self, index: int, text: str, reason: Optional[str]) -> Dict[str, Any]:
        choice: Dict[str, Any] = {"index": index, "logprobs": None, "finish_reason": reason}
        if self._is_chat:
            choice["message"] = {"role": "assistant", "content": text}
        else:
            choice["text"] = text
        return choice

    def _delta(self, piece: Piece, first: bool) -> Dict[str, Any]:
        choice: Dict[str, Any] = {
            "index": piece.index,
            "logprobs": None,
            "finish_reason": piece.finish_reason,
        }
        if not self._is_chat:
            choice["text"] = piece.text
        elif first:
            choice["delta"] = {"role": "assistant", "content": piece.text}
        else:
            choice["delta"] = {"content": piece.text}
        return choice


def model_list(names: List[str]) -> Dict[str, Any]:
    """What `v1/models` answers."""
    created = int(time.time())
    cards = [{"id": name, "object": "model", "created": created, "owned_by": "zoo"} for name in names]
    return {"object": "list", "data": cards}


def _usage(prompt: int, completion: int) -> Dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _event(value: Dict[str, Any]) -> str:
    return "data: {}\n\n".format(json.dumps(value))
