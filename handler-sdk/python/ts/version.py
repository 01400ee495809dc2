"""The version of TorchServe whose behaviour this package has; `version.txt` says the same for tools that read
files.
"""

__version__ = "0.12.0"
