"""Handler of MODEL: turns a list of numbers into their mean. Replace the two marked places by your own model."""

import json


class Handler:
    """One instance lives in each worker. The server calls `initialize` once and `handle` for each batch."""

    def __init__(self):
        self.scale = None

    def initialize(self, context):
        """Load the model here. Its files lie in `model_dir`."""
        self.model_dir = context.system_properties["model_dir"]
        self.scale = 1.0  # your weights

    def handle(self, data, context):
        """One answer for each request of the batch, in the same order."""
        return [self.predict(request.get("data") or request.get("body")) for request in data]

    def predict(self, body):
        if isinstance(body, (bytes, bytearray)):
            body = json.loads(body)
        numbers = body["numbers"]
        mean = sum(numbers) / len(numbers)  # your model
        return {"mean": self.scale * mean}
