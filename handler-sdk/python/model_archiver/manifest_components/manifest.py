"""The manifest: the first thing that a server reads in an archive."""

import json
from datetime import datetime
from enum import Enum
from typing import Any, Dict

from model_archiver.version import __version__

from .model import Model


class RuntimeType(Enum):
    """How a server makes workers for the model."""

    PYTHON = "python"
    PYTHON3 = "python3"
    LSP = "LSP"
    TORCHSCRIPT = "torchscript"
    ONNX = "onnx"
    NATIVE = "native"


class Manifest:
    """The content of `MAR-INF/MANIFEST.json`; `str()` gives its text."""

    def __init__(self, runtime: str, model: Model) -> None:
        self.creation_time = datetime.now().strftime("%d/%m/%Y %H:%M:%S")
        self.runtime = RuntimeType(runtime)
        self.model = model
        self.archiver_version = __version__
        self.manifest_dict = self.__to_dict__()

    def __to_dict__(self) -> Dict[str, Any]:
        return {
            "createdOn": self.creation_time,
            "runtime": self.runtime.value,
            "model": self.model.__to_dict__(),
            "archiverVersion": self.archiver_version,
        }

    def __str__(self) -> str:
        return json.dumps(self.manifest_dict, indent=2)

    __repr__ = __str__
