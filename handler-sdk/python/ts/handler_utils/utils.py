"""Class look-up by name, and answers in chunks."""

import importlib
from typing import Optional

from zoo_handler.stream import send_intermediate_predict_response

__all__ = ["import_class", "send_intermediate_predict_response"]


def import_class(class_name: str, module_prefix: Optional[str] = None) -> type:
    """The class `package.module.Class`, or `Class` of the module `module_prefix`."""
    path, _, name = class_name.rpartition(".")
    module_name = ".".join(part for part in (module_prefix, path) if part)
    if not module_name:
        raise ValueError(
            "class {!r}: say its module too, as in package.module.{}".format(class_name, class_name)
        )
    return getattr(importlib.import_module(module_name), name)
