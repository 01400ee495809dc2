"""The import surface of TorchServe, on top of `zoo_handler`: handlers written for TorchServe run unchanged.

Importing this package, or any module of it that TorchServe's users import without torch, doesn't import
torch.
"""

from .version import __version__

__all__ = ["__version__"]
