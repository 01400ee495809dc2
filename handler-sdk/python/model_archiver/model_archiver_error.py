"""The error of this package."""


class ModelArchiverError(Exception):
    """An archive can't be made; the message says why and what would be right."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
