"""A handler as TorchServe's users write it: a subclass of BaseHandler with each stage overridden."""

import json
import logging
import time

import numpy as np
import torch
from scipy import stats
from torchvision import transforms
from ts.torch_handler.base_handler import BaseHandler
from ts.torch_handler.image_classifier import ImageClassifier

logger = logging.getLogger(__name__)


class GreedyTimeHandler(BaseHandler):
    """Takes `{"time_need": [[…]], "start": [[…]]}` and answers with the order of the jobs."""

    image_processing = transforms.Compose([transforms.ToTensor()])
    topk = ImageClassifier.topk

    def __init__(self):
        super().__init__()
        self._context = None

    def initialize(self, context):
        self._context = context
        super().initialize(context)
        logger.info("greedy_time is ready on %s", self.device)

    def preprocess(self, data):
        body = data[0].get("data") or data[0].get("body")
        if isinstance(body, (bytes, bytearray)):  # gRPC sends bytes, REST an object
            body = json.loads(body)
        need = np.asarray(body["time_need"], dtype=np.float32)
        start = np.asarray(body["start"], dtype=np.float32)
        logger.info("jobs: %d, mean need: %.2f", need.shape[-1], stats.describe(need, axis=None).mean)
        return torch.from_numpy(need), torch.from_numpy(start)

    def inference(self, data, *args, **kwargs):
        time_need, start = data
        with torch.no_grad():
            return self.model(time_need.to(self.device), start.to(self.device))

    def postprocess(self, data):
        return data.tolist()

    def handle(self, data, context):
        started = time.time()
        self.context = context
        prepared = self.preprocess(data)
        if self._is_explain():
            output = self.explain_handle(prepared, data)
        else:
            output = self.postprocess(self.inference(prepared))
        context.metrics.add_time("HandlerTime", round((time.time() - started) * 1000, 2), None, "ms")
        return output
