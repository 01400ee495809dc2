"""Classes of the pixels of images."""

from typing import Any, List

import torch
from torchvision import transforms

from ts.handler_utils.timer import timed

from .vision_handler import VisionHandler, rgb


class ImageSegmenter(VisionHandler):
    """Answers each image with rows of pixels, each a pair of class and probability."""

    image_processing = transforms.Compose(
        [
            transforms.Lambda(rgb),
            transforms.Resize(256),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]),
        ]
    )

    @timed
    def postprocess(self, data: Any) -> List[Any]:
        scores = data["out"] if isinstance(data, dict) else data
        probability, cls = torch.nn.functional.softmax(scores, dim=1).max(dim=1)
        return torch.stack([cls.type(probability.dtype), probability], dim=3).tolist()
