"""The envelope `kserve`: version 1 of KServe's protocol."""

from typing import Any, Dict, List

from .rows import RowsEnvelope, rows_under


class KServeEnvelope(RowsEnvelope):
    """The handler gets the instances; the answer has them under `predictions` or `explanations`."""

    def rows_of(self, body: Any, index: int) -> List[Any]:
        return rows_under(body, "instances")

    def answer(self, results: Any, index: int) -> Dict[str, Any]:
        explains = self.context.get_request_header(index, "explain") == "True"
        return {"explanations" if explains else "predictions": results}
