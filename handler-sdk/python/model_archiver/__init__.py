"""Python API of the archiver, with the import surface of `torch-model-archiver`.

Packing itself is done by the `zoo-archiver` program; this package builds its command line, and turns what
it says into Python exceptions and log records. In reading order: `model_archiver_config` (what to pack),
`model_packaging` (pack it), `model_packaging_utils` (single steps), `manifest_components` (the manifest),
`program` (the only module that starts a process).
"""

from .version import __version__  # isort: skip - manifest_components reads it from here
from .model_archiver import ModelArchiver
from .model_archiver_config import ModelArchiverConfig

__all__ = ["ModelArchiver", "ModelArchiverConfig", "__version__"]
