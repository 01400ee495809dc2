"""The envelope `body`: the handler gets what requests sent, without the names of the parameters."""

from typing import Any, List

from .base import BaseEnvelope


class BodyEnvelope(BaseEnvelope):
    """Takes the value of `data` or `body` out of each request."""

    def parse_input(self, data: List[Any]) -> List[Any]:
        return [row["data"] if row.get("data") is not None else row.get("body") for row in data]

    def format_output(self, results: Any) -> Any:
        return results
