"""What envelopes have in common."""

import inspect
from abc import ABC, abstractmethod
from typing import Any, Callable, Dict, List


class BaseEnvelope(ABC):
    """Stands before an entry point: `parse_input` makes what it gets, `format_output` what clients get."""

    def __init__(self, handle_fn: Callable[[Any, Any], Any]) -> None:
        self._handle_fn = handle_fn
        self.context: Any = None

    def handle(self, data: List[Any], context: Any) -> Any:
        """The entry point with the envelope around it."""
        self.context = context
        return self._call(self.parse_input(data), context)

    def _call(self, rows: Any, context: Any) -> Any:
        results = self._handle_fn(rows, context)
        if inspect.isawaitable(results):
            # Requests of an asynchronous handler overlap: each keeps what parse_input remembered of it.
            return self._format_later(results, dict(self.__dict__))
        return self.format_output(results)

    async def _format_later(self, results: Any, remembered: Dict[str, Any]) -> Any:
        done = await results
        self.__dict__.update(remembered)
        return self.format_output(done)

    @abstractmethod
    def parse_input(self, data: List[Any]) -> Any:
        """From requests to what the handler gets."""

    @abstractmethod
    def format_output(self, results: Any) -> List[Any]:
        """From what the handler returned to one answer for each request."""
