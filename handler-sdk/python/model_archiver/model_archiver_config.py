"""What goes into an archive, and where the archive goes."""

import os
from argparse import Namespace
from dataclasses import dataclass, field, fields
from typing import Optional

from .manifest_components.manifest import RuntimeType


@dataclass
class ModelArchiverConfig:
    """One archive to be made; each field is the command line flag of the same name."""

    model_name: str
    handler: Optional[str]
    version: str
    serialized_file: Optional[str] = None
    model_file: Optional[str] = None
    extra_files: Optional[str] = None
    runtime: str = RuntimeType.PYTHON.value
    export_path: str = field(default_factory=os.getcwd)
    archive_format: str = "default"
    force: bool = False
    requirements_file: Optional[str] = None
    config_file: Optional[str] = None

    @classmethod
    def from_args(cls, args: Namespace) -> "ModelArchiverConfig":
        """The configuration that a namespace of parsed arguments holds."""
        return cls(**{each.name: getattr(args, each.name) for each in fields(cls)})
