"""The envelope `kservev2`: version 2 of KServe's protocol, with tensors as JSON."""

import json
from typing import Any, Dict, List, Tuple

from zoo_handler.errors import PredictionException

from .rows import RowsEnvelope, rows_under

_DATATYPES = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
}


class KServev2Envelope(RowsEnvelope):
    """The handler gets the inputs, each with `data` in its shape; each of its results is an output."""

    def parse_input(self, data: List[Any]) -> List[Any]:
        self._ids: List[Any] = [None] * len(data)
        self._names: List[List[str]] = [[] for _ in data]
        rows = super().parse_input(data)
        # What handlers know them by.
        self.context.input_request_id = self._ids[0] if data else None
        self.context.input_names = [name for names in self._names for name in names]
        return rows

    def rows_of(self, body: Any, index: int) -> List[Any]:
        rows = [_shaped(row) for row in rows_under(body, "inputs")]
        self._ids[index] = body.get("id")
        self._names[index] = [row["name"] for row in rows]
        return rows

    def answer(self, results: Any, index: int) -> Dict[str, Any]:
        model = self.context.manifest.get("model", {})
        names = self._names[index]
        outputs = []
        for position, result in enumerate(results):
            name = names[position] if position < len(names) else "output-{}".format(position)
            outputs.append(_output(name, result))
        return {
            "id": self._ids[index] or self.context.get_request_id(index),
            "model_name": model.get("modelName"),
            "model_version": model.get("modelVersion"),
            "outputs": outputs,
        }


def _shaped(row: Any) -> Dict[str, Any]:
    """An input with its data in its shape: a nested list, or for BYTES the first element."""
    missing = [
        key for key in ("name", "shape", "datatype", "data") if not isinstance(row, dict) or key not in row
    ]
    if missing:
        raise PredictionException("an input lacks {}".format(", ".join(missing)), 400)
    flat = _flatten(row["data"])[1]
    if row["datatype"] == "BYTES":
        if not flat:
            raise PredictionException("input {}: BYTES without an element".format(row["name"]), 400)
        return dict(row, data=flat[0])
    shape = row["shape"]
    if _size(shape) != len(flat):
        raise PredictionException(
            "input {}: {} elements don't fit the shape {}".format(row["name"], len(flat), shape), 400
        )
    return dict(row, data=_nest(flat, shape))


def _size(shape: List[int]) -> int:
    size = 1
    for length in shape:
        size *= length
    return size


def _nest(flat: List[Any], shape: List[int]) -> Any:
    for length in reversed(shape[1:]):
        if not length:
            return [[] for _ in range(shape[0])]
        flat = [flat[start : start + length] for start in range(0, len(flat), length)]
    return flat if shape else flat[0]


def _flatten(data: Any) -> Tuple[List[int], List[Any]]:
    """The shape and the elements of a nested list."""
    if not isinstance(data, list):
        return [], [data]
    parts = [_flatten(part) for part in data]
    if not parts:
        return [0], []
    return [len(parts)] + parts[0][0], [element for _, elements in parts for element in elements]


def _output(name: str, result: Any) -> Dict[str, Any]:
    """One result as a tensor. What has no numbers is BYTES: text as it is, anything else as JSON."""
    datatype = None
    if hasattr(result, "dtype") and hasattr(
        result, "tolist"
    ):  # of torch or numpy; neither is imported for this
        datatype = _DATATYPES.get(str(result.dtype).rpartition(".")[2])
        result = result.tolist()
    if isinstance(result, (bytes, bytearray)):
        result = result.decode("utf-8", "replace")
    shape, elements = _flatten(list(result) if isinstance(result, tuple) else result)
    if _size(shape) != len(elements):  # rows of different length are no tensor
        shape, elements = [], [result]
    datatype = datatype or _datatype(elements)
    if datatype == "BYTES":
        elements = [element if isinstance(element, str) else json.dumps(element) for element in elements]
    return {"name": name, "datatype": datatype, "data": elements, "shape": shape or [1]}


def _datatype(elements: List[Any]) -> str:
    kinds = {type(element) for element in elements}
    if kinds and kinds <= {bool}:
        return "BOOL"
    if kinds and kinds <= {int}:
        return "INT64"
    if kinds and kinds <= {int, float}:
        return "FP64"
    return "BYTES"
