"""Makes an archive from a configuration; as a program, from its arguments."""

import json
import logging
from typing import Any, Dict, Optional

from . import program
from .arg_parser import ArgParser
from .model_archiver_config import ModelArchiverConfig
from .model_archiver_error import ModelArchiverError
from .model_packaging_utils import ModelExportUtils, pack_arguments, run_with_manifest

# Written by whoever writes the archive: they don't make a manifest another one.
_WRITERS_KEYS = ("createdOn", "archiverVersion")


def package_model(config: ModelArchiverConfig, manifest: str) -> None:
    """Write the archive of `config`; a `manifest` that says something else is taken word for word."""
    arguments = pack_arguments(config)
    try:
        if _same_manifest(manifest, ModelExportUtils.generate_manifest_json(config)):
            program.run(arguments)
        else:
            run_with_manifest(arguments, manifest)
    except ModelArchiverError as error:
        logging.error(error)
        raise
    logging.info("Successfully exported model %s to file %s", config.model_name, config.export_path)


def generate_model_archive(config: Optional[ModelArchiverConfig] = None) -> None:
    """Write the archive that `config` describes, or the arguments of the running program."""
    logging.basicConfig(format="%(levelname)s - %(message)s")
    if config is None:
        config = ArgParser.export_model_args_parser()
    package_model(config, manifest=ModelExportUtils.generate_manifest_json(config))


def _same_manifest(one: str, other: str) -> bool:
    try:
        return _said_by(one) == _said_by(other)
    except (ValueError, AttributeError):
        return False


def _said_by(manifest: str) -> Dict[str, Any]:
    return {key: value for key, value in json.loads(manifest).items() if key not in _WRITERS_KEYS}


if __name__ == "__main__":
    generate_model_archive()
