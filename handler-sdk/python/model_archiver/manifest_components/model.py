"""The `model` object of a manifest."""

import json
import os
from typing import Any, Dict, Optional


class Model:
    """What is served: names of files in the archive, never paths."""

    def __init__(
        self,
        model_name: str,
        serialized_file: Optional[str],
        handler: Optional[str],
        model_file: Optional[str] = None,
        model_version: Optional[str] = None,
        extensions: Optional[Dict[str, Any]] = None,
        requirements_file: Optional[str] = None,
        config_file: Optional[str] = None,
    ) -> None:
        self.model_name = model_name
        self.serialized_file = _base_name(serialized_file)
        self.model_file = model_file
        self.model_version = model_version
        self.extensions = extensions
        # An empty handler is written as such; None is the absence of one, which some runtimes allow.
        self.handler = None if handler is None else os.path.basename(handler)
        self.requirements_file = requirements_file
        self.config_file = _base_name(config_file)
        self.model_dict = self.__to_dict__()

    def __to_dict__(self) -> Dict[str, Any]:
        optional = {
            "modelFile": _base_name(self.model_file),
            "modelVersion": self.model_version,
            "extensions": self.extensions,
            "requirementsFile": _base_name(self.requirements_file),
            "configFile": self.config_file,
        }
        model = {"modelName": self.model_name}  # type: Dict[str, Any]
        if self.serialized_file:
            model["serializedFile"] = self.serialized_file
        if self.handler is not None:
            model["handler"] = self.handler
        model.update((key, value) for key, value in optional.items() if value)
        return model

    def __str__(self) -> str:
        return json.dumps(self.model_dict)

    __repr__ = __str__


def _base_name(path: Optional[str]) -> Optional[str]:
    return os.path.basename(path) if path else None
