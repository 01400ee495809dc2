"""Batches requests with sequences of one length; a function is the entry point, as older handlers have it."""

import json

import torch
from ts.torch_handler.base_handler import BaseHandler
from ts.utils.util import PredictionException


class PointerNetHandler(BaseHandler):
    """Takes a list of points, answers with their order."""

    def preprocess(self, data):
        rows = []
        for row in data:
            points = row.get("data") or row.get("body")
            if isinstance(points, (bytes, bytearray)):
                points = json.loads(points)
            rows.append(points)
        if len({len(points) for points in rows}) != 1:
            raise PredictionException("all sequences of a batch must have the same length", 400)
        return torch.tensor(rows, dtype=torch.float32, device=self.device)


_service = PointerNetHandler()


def handle(data, context):
    if not _service.initialized:
        _service.initialize(context)
    if data is None:
        return None
    return _service.handle(data, context)
