"""The command line of `torch-model-archiver`, for scripts that parse it in Python."""

import argparse
import os

from .manifest_components.manifest import RuntimeType
from .model_archiver_config import ModelArchiverConfig

# Runtimes that serve weights without any code of the user.
_RUNTIMES_WITHOUT_HANDLER = (RuntimeType.TORCHSCRIPT.value, RuntimeType.ONNX.value)


class ArgParser:
    """Reads the arguments of the running program."""

    @staticmethod
    def export_model_args_parser() -> ModelArchiverConfig:
        """Parse `sys.argv`; usage errors end the program with status 2, as argparse does."""
        parser = _parser()
        args = parser.parse_args()
        if args.handler is None and args.runtime not in _RUNTIMES_WITHOUT_HANDLER:
            parser.error("the following arguments are required: --handler")
        return ModelArchiverConfig.from_args(args)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="torch-model-archiver", description="Packs a model into an archive."
    )
    add = parser.add_argument
    add("--model-name", required=True, help="name of the model and base name of the archive")
    add("--serialized-file", help="weights: .pt, .pth, .onnx, ...")
    add("--model-file", help="Python file that holds the model class (eager mode)")
    add("--handler", help="built-in handler, or the path of a handler file, also as path/module:function")
    add("--extra-files", help="comma-separated files, folders and patterns")
    add(
        "--runtime",
        default=RuntimeType.PYTHON.value,
        choices=[runtime.value for runtime in RuntimeType],
        help="how the model is run (default: %(default)s)",
    )
    add("--export-path", default=os.getcwd(), help="folder for the archive (default: the current one)")
    add(
        "--archive-format",
        default="default",
        choices=["tgz", "no-archive", "zip-store", "default"],
        help="default: compressed .mar; zip-store: uncompressed .mar; tgz: .tar.gz; no-archive: a folder",
    )
    add("-f", "--force", action="store_true", help="replace an existing archive")
    add("-v", "--version", required=True, help="version of the model")
    add("-r", "--requirements-file", help="requirements.txt with the model's own dependencies")
    add("-c", "--config-file", help="YAML file with the model's configuration")
    return parser
