"""Serves an asynchronous handler over TorchServe's protocol: requests overlap, answers go out when they are
ready.
"""

import asyncio
import copy
import inspect
import logging
from typing import Any, Dict, List

from ts.protocol.otf_message_handler import PREDICT_MSG, create_predict_response, retrieve_msg
from ts.service import Service
from zoo_handler.answer import failure_of

logger = logging.getLogger(__name__)


class AsyncService:
    """Runs the coroutines of a `Service`."""

    def __init__(self, service: Service) -> None:
        self.service = service

    async def predict(self, batch: List[Dict[str, Any]]) -> bytearray:
        """Answers one batch. It has a context of its own, because others run meanwhile."""
        data = self.service.prepare(batch)
        context = copy.copy(self.service.context)
        request_ids = dict(context.request_ids)
        try:
            answers = self.service._entry_point(data, context)
            if inspect.isawaitable(answers):
                answers = await answers
            if isinstance(answers, list) and len(answers) == 1 and hasattr(answers[0], "__anext__"):
                answers = [await self._stream(answers[0], context)]
        except Exception as cause:
            code, message = failure_of(cause)
            return create_predict_response(None, request_ids, message, code)
        problem = self.service.problem_of(answers, len(request_ids))
        if problem is not None:
            return create_predict_response(None, request_ids, problem, 503)
        return create_predict_response(answers, request_ids, "Prediction success", 200, context)

    async def _stream(self, pieces: Any, context: Any) -> Any:
        """Sends all pieces but the last, which is the answer that ends the stream."""
        last: Any = None
        async for piece in pieces:
            if last is not None:
                self.service._send_intermediate([last], "Intermediate Prediction success", 200, context)
            last = piece
        return "" if last is None else last

    def run(self) -> None:
        """Serves the connection of the service's context until the frontend leaves."""
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        socket = self.service.context.cl_socket
        running = set()
        while True:
            try:
                command, batch = await loop.run_in_executor(None, retrieve_msg, socket)
            except OSError:
                break
            if command != PREDICT_MSG:
                raise ValueError("an asynchronous worker has loaded its model already")
            task = asyncio.ensure_future(self._answer(socket, batch))
            running.add(task)
            task.add_done_callback(running.discard)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _answer(self, socket: Any, batch: List[Dict[str, Any]]) -> None:
        socket.sendall(await self.predict(batch))
