"""The context that handlers get."""

from zoo_handler.context import Context, RequestProcessor

__all__ = ["Context", "RequestProcessor"]
