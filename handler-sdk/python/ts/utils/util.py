"""What handlers import from `ts.utils.util`: class look-up, label mappings, exceptions. Needs no torch."""

import enum
import functools
import inspect
import json
import logging
import os
import re
import types
import warnings
from typing import Any, Callable, Dict, List, Optional, Sequence

from zoo_handler.errors import PredictionException

__all__ = [
    "CLEANUP_REGEX",
    "PT2Backend",
    "PredictionException",
    "check_valid_pt2_backend",
    "deprecated",
    "get_yaml_config",
    "list_classes_from_module",
    "load_label_mapping",
    "map_class_to_label",
]

logger = logging.getLogger(__name__)

# Tags and character references of HTML.
CLEANUP_REGEX = re.compile(r"<[^>]*>|&(?:[a-z0-9]+|#[0-9]{1,6}|#x[0-9a-f]{1,6});")


class PT2Backend(str, enum.Enum):
    """Backends of `torch.compile` that a model configuration may name."""

    EAGER = "eager"
    AOT_EAGER = "aot_eager"
    INDUCTOR = "inductor"
    NVFUSER = "nvfuser"
    AOT_NVFUSER = "aot_nvfuser"
    AOT_CUDAGRAPHS = "aot_cudagraphs"
    OFI = "ofi"
    FX2TRT = "fx2trt"
    ONNXRT = "onnxrt"
    IPEX = "ipex"
    TORCHXLA_TRACE_ONCE = "torchxla_trace_once"
    OPENVINO = "openvino"
    TENSORRT = "tensorrt"
    HPU_BACKEND = "hpu_backend"


def check_valid_pt2_backend(backend: str) -> bool:
    """Whether a backend of `torch.compile` is known; warns if it isn't."""
    known = [member.value for member in PT2Backend]
    if backend in known:
        return True
    logger.warning(
        "pt2 backend %r is unknown, the model isn't compiled; known are %s", backend, ", ".join(known)
    )
    return False


def list_classes_from_module(module: types.ModuleType, parent_class: Optional[type] = None) -> List[type]:
    """The classes that a module defines (not those that it imports), by name."""
    classes = [
        member
        for _, member in inspect.getmembers(module, inspect.isclass)
        if member.__module__ == module.__name__
    ]
    if parent_class is None:
        return classes
    return [cls for cls in classes if issubclass(cls, parent_class)]


def load_label_mapping(mapping_file_path: str) -> Optional[Dict[str, str]]:
    """Reads `index_to_name.json`: class index as text → label. None, with a warning, if there is no such
    file.
    """
    if not os.path.isfile(mapping_file_path):
        logger.warning(
            "%s is missing: answers name classes by their index", os.path.basename(mapping_file_path)
        )
        return None
    with open(mapping_file_path, encoding="utf-8") as file:
        mapping = json.load(file)
    if not isinstance(mapping, dict):
        raise ValueError("{}: must be an object from class index to label".format(mapping_file_path))
    if "object_type_names" in mapping:
        names = mapping["object_type_names"]
        if not isinstance(names, list):
            raise ValueError("{}: object_type_names must be a list of labels".format(mapping_file_path))
        return {str(index): name for index, name in enumerate(names)}
    return {index: _label(mapping_file_path, index, value) for index, value in mapping.items()}


def _label(path: str, index: str, value: Any) -> str:
    if isinstance(value, list) and value:
        value = value[-1]
    if not isinstance(value, str):
        raise ValueError("{}: class {}: {!r} must be a label or a list of labels".format(path, index, value))
    return value


def map_class_to_label(
    probs: Sequence[Sequence[Any]],
    mapping: Optional[Dict[str, str]] = None,
    lbl_classes: Optional[Sequence[Sequence[int]]] = None,
) -> List[Dict[str, Any]]:
    """One object from label to value for each row of `probs`.

    `lbl_classes` says which class each value is of; without it, values are in order of classes.
    """
    if not isinstance(probs, list) or not all(isinstance(row, list) for row in probs):
        raise ValueError("probabilities must be a list with a list for each request")
    if lbl_classes is None:
        lbl_classes = [range(len(row)) for row in probs]
    labels = mapping or {}
    return [
        {labels.get(str(cls), str(cls)): value for cls, value in zip(classes, row)}
        for classes, row in zip(lbl_classes, probs)
    ]


def get_yaml_config(yaml_file_path: str) -> Dict[str, Any]:
    """Reads a YAML file."""
    try:
        import yaml
    except ImportError as cause:
        raise RuntimeError(
            "{}: reading it needs the Python package pyyaml, which isn't installed".format(yaml_file_path)
        ) from cause
    with open(yaml_file_path, encoding="utf-8") as file:
        return yaml.safe_load(file) or {}


def deprecated(version: str = "", replacement: str = "", klass: bool = False) -> Callable[[Any], Any]:
    """Marks a function, or with `klass` a class, that goes away: its first use warns."""

    def decorate(target: Any) -> Any:
        message = "{} is deprecated{}{}".format(
            target.__name__,
            " and will be removed in {}".format(version) if version else "",
            "; use {}".format(replacement) if replacement else "",
        )
        call = target.__init__ if klass else target

        @functools.wraps(call)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            warnings.warn(message, DeprecationWarning, stacklevel=2)
            return call(*args, **kwargs)

        if klass:
            target.__init__ = wrapper
            return target
        return wrapper

    return decorate
