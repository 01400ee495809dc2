"""The envelope of bodies that carry several rows each: rows of all requests of a batch are handled in one
call.

This module doesn't know what bodies look like. Its subclasses do: `rows_of` and `answer`.
"""

import json
from abc import abstractmethod
from typing import Any, Callable, List, Union

from zoo_handler.errors import PredictionException

from .base import BaseEnvelope


class RowsEnvelope(BaseEnvelope):
    """Puts the rows of all requests into one list, and cuts what comes back into one answer for each request.

    A request that can't be read gets an error of its own; the others of its batch are answered.
    """

    def __init__(self, handle_fn: Callable[[Any, Any], Any]) -> None:
        super().__init__(handle_fn)
        self._slots: List[
            Union[int, PredictionException]
        ] = []  # for each request: its rows, or why it has none

    @abstractmethod
    def rows_of(self, body: Any, index: int) -> List[Any]:
        """The rows of one request; raises `PredictionException` for a body of the wrong form."""

    @abstractmethod
    def answer(self, results: List[Any], index: int) -> Any:
        """The answer of one request, from the results for its rows."""

    def handle(self, data: List[Any], context: Any) -> Any:
        self.context = context
        rows = self.parse_input(data)
        if all(isinstance(slot, PredictionException) for slot in self._slots):
            return self.format_output([])
        return self._call(rows, context)

    def parse_input(self, data: List[Any]) -> List[Any]:
        rows: List[Any] = []
        self._slots = []
        for index, row in enumerate(data):
            try:
                own = self.rows_of(_body(row), index)
            except PredictionException as failure:
                self._slots.append(failure)
            else:
                self._slots.append(len(own))
                rows.extend(own)
        return rows

    def format_output(self, results: Any) -> List[Any]:
        if len(self._slots) == 1 and not isinstance(self._slots[0], PredictionException):
            return [self.answer(results, 0)]  # nothing to cut, so the handler need not answer row by row
        self._check(results)
        answers: List[Any] = []
        start = 0
        for index, slot in enumerate(self._slots):
            if isinstance(slot, PredictionException):
                answers.append(slot)
            else:
                answers.append(self.answer(results[start : start + slot], index))
                start += slot
        return answers

    def _check(self, results: Any) -> None:
        rows = sum(slot for slot in self._slots if not isinstance(slot, PredictionException))
        if not isinstance(results, list) or len(results) != rows:
            found = len(results) if isinstance(results, list) else type(results).__name__
            raise ValueError(
                "the handler answered {} for {} rows of {} requests: with an envelope and a batch of more "
                "than one request it must return one result for each row".format(
                    found, rows, len(self._slots)
                )
            )


def _body(row: Any) -> Any:
    """The parsed body of a request, whatever content type it came with."""
    body = row
    if isinstance(row, dict):
        for name in ("data", "body"):
            if row.get(name) is not None:
                body = row[name]
                break
    if isinstance(body, (bytes, bytearray, str)):
        try:
            body = json.loads(body)
        except ValueError as cause:
            raise PredictionException("the body is not JSON: {}".format(cause), 400) from cause
    return body


def rows_under(body: Any, key: str) -> List[Any]:
    """The list that a body has under a key."""
    rows = body.get(key) if isinstance(body, dict) else None
    if not isinstance(rows, list):
        raise PredictionException("the body must be a JSON object with a list `{}`".format(key), 400)
    return rows
