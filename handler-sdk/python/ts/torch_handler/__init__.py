"""The base handler and the built-in handlers."""
