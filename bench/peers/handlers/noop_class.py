"""The no-op handler as most of TorchServe's handlers are written: a class that is initialised once."""


class Noop:
    """Answers each request with two bytes."""

    def __init__(self):
        self.initialized = False

    def initialize(self, context):
        """Called once by the worker."""
        self.initialized = True

    def handle(self, data, context):
        """Called per batch."""
        return ["ok"] * len(data)
