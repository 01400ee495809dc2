"""Finds and initialises the handler of an unpacked archive, as TorchServe's worker does at its start."""

import importlib
import json
import os
from abc import ABC, abstractmethod
from typing import Any, Dict, Optional

from ts.service import Service
from ts.utils.util import get_yaml_config
from zoo_handler.loader import find_handler


class ModelLoaderFactory:
    """Gives the loader to use."""

    @staticmethod
    def get_model_loader() -> "ModelLoader":
        """The one that there is."""
        return TsModelLoader()


class ModelLoader(ABC):
    """What loaders have in common."""

    @abstractmethod
    def load(
        self,
        model_name: str,
        model_dir: str,
        handler: str,
        gpu_id: Optional[int],
        batch_size: int,
        envelope: Optional[str] = None,
        limit_max_image_pixels: Optional[bool] = True,
        metrics_cache: Any = None,
    ) -> Service:
        """Loads a model."""

    @staticmethod
    def list_model_services(module: Any, parent_class: Optional[type] = None) -> Any:
        """The classes that a module defines."""
        return importlib.import_module("ts.utils.util").list_classes_from_module(module, parent_class)


class TsModelLoader(ModelLoader):
    """Loads a handler that the archive brings, or one of the built-in ones."""

    def load(
        self,
        model_name: str,
        model_dir: str,
        handler: str,
        gpu_id: Optional[int],
        batch_size: int,
        envelope: Optional[str] = None,
        limit_max_image_pixels: Optional[bool] = True,
        metrics_cache: Any = None,
    ) -> Service:
        manifest = _manifest(model_dir)
        service = Service(
            model_name,
            model_dir,
            manifest,
            _not_loaded,
            gpu_id,
            batch_size,
            limit_max_image_pixels is not False,
            metrics_cache,
            _config(model_dir, manifest),
        )
        if metrics_cache is not None:
            metrics_cache.model_name = model_name
        load = {"model": {"name": model_name, "dir": model_dir, "handler": handler}, "envelope": envelope}
        found = find_handler(load, service.context)
        found.initialize()
        found.bind()
        service._entry_point = found.handle
        return service


def _not_loaded(_data: Any, _context: Any) -> Any:
    raise RuntimeError("the handler isn't loaded yet")


def _manifest(model_dir: str) -> Dict[str, Any]:
    path = os.path.join(model_dir, "MAR-INF", "MANIFEST.json")
    if not os.path.isfile(path):
        return {}
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def _config(model_dir: str, manifest: Dict[str, Any]) -> Dict[str, Any]:
    name = manifest.get("model", {}).get("configFile")
    return get_yaml_config(os.path.join(model_dir, name)) if name else {}
