"""The single steps of packing, for scripts that use them one by one.

`copy_artifacts` and `archive` let `zoo-archiver` do the work; the rest are pure rules.
"""

import logging
import os
import re
import shutil
import tarfile
import tempfile
import zipfile
from typing import Iterable, List, Optional, Set, Union

from . import program
from .manifest_components.manifest import Manifest, RuntimeType
from .manifest_components.model import Model
from .model_archiver_config import ModelArchiverConfig
from .model_archiver_error import ModelArchiverError

archiving_options = {"tgz": ".tar.gz", "no-archive": "", "zip-store": ".mar", "default": ".mar"}

model_handlers = {
    "base_handler": "anything",
    "text_classifier": "text",
    "image_classifier": "vision",
    "object_detector": "vision",
    "image_segmenter": "vision",
    "dali_image_classifier": "vision",
    "vllm_handler": "text",
    "trt_llm_handler": "text",
}

MANIFEST_FILE_NAME = "MANIFEST.json"
MAR_INF = "MAR-INF"

_MODEL_NAME = r"^[A-Za-z0-9][A-Za-z0-9_\-.]*$"
_UNWANTED_DIRECTORIES = {"__MACOSX", "__pycache__"}


class ModelExportUtils:
    """Static helpers; none keeps state."""

    @staticmethod
    def get_archive_export_path(export_file_path: str, model_name: str, archive_format: str) -> str:
        """The path of the archive."""
        return os.path.join(export_file_path, model_name + archiving_options[archive_format])

    @staticmethod
    def check_mar_already_exists(
        model_name: str, export_file_path: Optional[str], overwrite: bool, archive_format: str = "default"
    ) -> str:
        """The export path, if the archive may be written there."""
        directory = os.getcwd() if export_file_path is None else export_file_path
        path = ModelExportUtils.get_archive_export_path(directory, model_name, archive_format)
        if os.path.exists(path):
            if not overwrite:
                raise ModelArchiverError(
                    f"{path} already exists.\n"
                    "Please specify --force/-f option to overwrite the model archive output file.\n"
                    "See -h/--help for more details."
                )
            logging.warning("Overwriting %s ...", path)
        return directory

    @staticmethod
    def find_unique(files: Iterable[str], suffix: str) -> Optional[str]:
        """The one file with this suffix; None if there is none."""
        found = [name for name in files if name.endswith(suffix)]
        if len(found) > 1:
            raise ModelArchiverError(
                f"model-archiver expects only one {suffix} file in the folder."
                f" Found {len(found)} files {found} in model-path."
            )
        return found[0] if found else None

    @staticmethod
    def generate_model(modelcfg: ModelArchiverConfig) -> Model:
        """The `model` object of the manifest."""
        return Model(
            model_name=modelcfg.model_name,
            serialized_file=modelcfg.serialized_file,
            model_file=modelcfg.model_file,
            handler=modelcfg.handler,
            model_version=modelcfg.version,
            requirements_file=modelcfg.requirements_file,
            config_file=modelcfg.config_file,
        )

    @staticmethod
    def generate_manifest_json(config: ModelArchiverConfig) -> str:
        """The text of the manifest."""
        return str(Manifest(runtime=config.runtime, model=ModelExportUtils.generate_model(config)))

    @staticmethod
    def clean_temp_files(temp_files: Iterable[str]) -> None:
        """Remove these files."""
        for path in temp_files:
            os.remove(path)

    @staticmethod
    def make_dir(d: str) -> None:
        """Make a folder and its parents, if it is missing."""
        os.makedirs(d, exist_ok=True)

    @staticmethod
    def copy_artifacts(model_name: str, runtime: str, **kwargs: Optional[str]) -> str:
        """Collect the artefacts in a new folder, which is the caller's to remove, and give its path.

        Artefacts are `model_file`, `serialized_file`, `handler`, `extra_files`, `requirements-file` and
        `config_file`.
        """
        artefacts = {kind.replace("-", "_"): path for kind, path in kwargs.items()}
        artefacts.setdefault("handler", None)
        with tempfile.TemporaryDirectory(prefix="model-archiver-") as scratch:
            config = ModelArchiverConfig(
                model_name=model_name,
                version="1.0",
                runtime=runtime,
                export_path=scratch,
                archive_format="no-archive",
                **artefacts,  # type: ignore[arg-type]
            )
            if not config.handler:
                config.handler = _handler_without_file(runtime)
            program.run(pack_arguments(config))
            packed = os.path.join(scratch, model_name)
            # What the program wrote about the folder isn't an artefact.
            shutil.rmtree(os.path.join(packed, MAR_INF))
            folder = tempfile.mkdtemp(prefix=model_name + "-")
            os.replace(packed, folder)
        return folder

    @staticmethod
    def archive(
        export_file: str, model_name: str, model_path: str, manifest: str, archive_format: str = "default"
    ) -> None:
        """Write what is in the folder `model_path`, and `manifest`, as an archive into `export_file`."""
        target = ModelExportUtils.get_archive_export_path(export_file, model_name, archive_format)
        if os.path.exists(target) and os.path.samefile(model_path, target):
            _write_manifest(model_path, manifest)
            return
        config = ModelArchiverConfig(
            model_name=model_name,
            version="1.0",
            handler=_handler_without_file(RuntimeType.PYTHON.value),
            # Relative to where the program runs, so that no character of its path is taken for a pattern.
            extra_files=os.curdir,
            export_path=os.path.abspath(export_file),
            archive_format=archive_format,
            force=True,
        )
        run_with_manifest(pack_arguments(config), manifest, directory=model_path)

    @staticmethod
    def archive_dir(
        path: str, dst: Union[str, zipfile.ZipFile, tarfile.TarFile], archive_format: str, model_name: str
    ) -> None:
        """Add the files below `path` to an open zip or tar file, or to a folder; skip hidden folders."""
        for root, directories, files in os.walk(path):
            directories[:] = [
                name for name in directories if ModelExportUtils.directory_filter(name, _UNWANTED_DIRECTORIES)
            ]
            for file in (os.path.join(root, name) for name in files):
                name = os.path.relpath(file, path)
                if isinstance(dst, str):
                    copy = os.path.join(dst, name)
                    ModelExportUtils.make_dir(os.path.dirname(copy))
                    shutil.copy(file, copy)
                elif archive_format == "tgz":
                    dst.add(file, arcname=os.path.join(model_name, name))  # type: ignore[union-attr]
                else:
                    dst.write(file, name)  # type: ignore[union-attr]

    @staticmethod
    def directory_filter(directory: str, unwanted_dirs: Set[str]) -> bool:
        """Whether a folder of this name goes into an archive."""
        return directory not in unwanted_dirs and not directory.startswith(".")

    @staticmethod
    def file_filter(current_file: str, files_to_exclude: Set[str]) -> bool:
        """Whether a file of this name is neither excluded nor a by-product; excludes the manifest too."""
        files_to_exclude.add(MANIFEST_FILE_NAME)
        return current_file not in files_to_exclude and not current_file.endswith(
            (".pyc", ".DS_Store", ".mar")
        )

    @staticmethod
    def check_model_name_regex_or_exit(model_name: str) -> None:
        """Refuse a name that can't be a model's."""
        if not re.match(_MODEL_NAME, model_name):
            raise ModelArchiverError(
                "Model name contains special characters.\n"
                "The allowed regular expression filter for model name is: " + _MODEL_NAME
            )

    @staticmethod
    def validate_inputs(model_name: str, export_path: str) -> None:
        """Refuse a bad model name, and an export path that is no folder."""
        ModelExportUtils.check_model_name_regex_or_exit(model_name)
        if not os.path.isdir(os.path.abspath(export_path)):
            raise ModelArchiverError(
                f"Given export-path {export_path} is not a directory. Point to a valid export-path directory."
            )


def pack_arguments(config: ModelArchiverConfig) -> List[str]:
    """The arguments of `zoo-archiver` for this archive."""
    optional = {
        "serialized-file": config.serialized_file,
        "model-file": config.model_file,
        "extra-files": config.extra_files,
        "requirements-file": config.requirements_file,
        "config-file": config.config_file,
    }
    given = {"model-name": config.model_name, "version": config.version, "runtime": config.runtime}  # type: Dict[str, Any]
    given["archive-format"] = config.archive_format
    given["export-path"] = os.getcwd() if config.export_path is None else config.export_path
    if config.handler is not None:
        given["handler"] = config.handler
    given.update((flag, value) for flag, value in optional.items() if value)
    # One word for flag and value: a value may begin with a dash.
    arguments = [f"--{flag}={os.fspath(value)}" for flag, value in given.items()]
    return arguments + (["--force"] if config.force else [])


def run_with_manifest(arguments: List[str], manifest: str, directory: Optional[str] = None) -> None:
    """Run the program so that it writes this manifest instead of its own."""
    with tempfile.TemporaryDirectory(prefix="model-archiver-") as scratch:
        path = os.path.join(scratch, MANIFEST_FILE_NAME)
        with open(path, "w", encoding="utf-8") as file:
            file.write(manifest)
        program.run(arguments + ["--manifest=" + path], directory)


def _handler_without_file(runtime: str) -> str:
    """A handler of this runtime that is not a file of the archive."""
    return "BaseHandler" if runtime == RuntimeType.LSP.value else "base_handler"


def _write_manifest(folder: str, manifest: str) -> None:
    inner = os.path.join(folder, MAR_INF)
    # Digests of an earlier manifest would make the folder look corrupt.
    shutil.rmtree(inner, ignore_errors=True)
    ModelExportUtils.make_dir(inner)
    with open(os.path.join(inner, MANIFEST_FILE_NAME), "w", encoding="utf-8") as file:
        file.write(manifest)
