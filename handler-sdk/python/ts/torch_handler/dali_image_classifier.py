"""Classes of images, preprocessed by NVIDIA DALI."""

from .dali_handler import DALIHandler
from .image_classifier import ImageClassifier


class DALIImageClassifier(DALIHandler, ImageClassifier):
    """An `ImageClassifier` whose images are decoded on the GPU."""
