"""The envelope `json`: bodies `{"instances": […]}`, answers `{"predictions": […]}` as text."""

import base64
import binascii
import json
from typing import Any, List

from zoo_handler.errors import PredictionException

from .rows import RowsEnvelope, rows_under


class JSONEnvelope(RowsEnvelope):
    """The handler gets the instances of all requests in one list; `{"b64": …}` comes as bytes."""

    def rows_of(self, body: Any, index: int) -> List[Any]:
        return [_decode(row) for row in rows_under(body, "instances")]

    def answer(self, results: List[Any], index: int) -> str:
        return json.dumps({"predictions": results})


def _decode(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if set(value) != {"b64"}:
        return {key: _decode(item) for key, item in value.items()}
    try:
        return base64.b64decode(value["b64"])
    except (TypeError, ValueError, binascii.Error) as cause:
        raise PredictionException("an instance has a b64 that isn't base64: {}".format(cause), 400) from cause
