"""Things in images, with their places."""

from typing import Any, Dict, List

import torch
from torchvision import transforms

from ts.handler_utils.timer import timed
from ts.utils.util import map_class_to_label

from .vision_handler import VisionHandler, rgb


class ObjectDetector(VisionHandler):
    """Answers each image with the boxes of what is in it, for scores of at least `threshold`."""

    image_processing = transforms.Compose([transforms.Lambda(rgb), transforms.ToTensor()])
    threshold = 0.5

    @timed
    def preprocess(self, data: List[Any]) -> Any:
        """One stacked tensor, or a list of tensors if images differ in size: detection models take both."""
        images = self.tensors(data)
        if all(image.shape == images[0].shape for image in images):
            return torch.stack(images).to(self.device)
        return [image.to(self.device) for image in images]

    @timed
    def inference(self, data: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(data, list):
            return super().inference(data, *args, **kwargs)
        with torch.inference_mode():
            return self.model(data, *args, **kwargs)

    @timed
    def postprocess(self, data: Any) -> List[Any]:
        if isinstance(
            data, tuple
        ):  # what scripted detection models of torchvision return: losses, detections
            data = data[1]
        return [self._detections(found) for found in data]

    def _detections(self, found: Dict[str, Any]) -> List[Dict[str, Any]]:
        keep = found["scores"] >= self.threshold
        rows = zip(
            found["labels"][keep].tolist(), found["boxes"][keep].tolist(), found["scores"][keep].tolist()
        )
        detections = []
        for cls, box, score in rows:
            detection = map_class_to_label([[box]], self.mapping, [[cls]])[0]
            detection["score"] = score
            detections.append(detection)
        return detections
