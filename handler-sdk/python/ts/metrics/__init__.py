"""Metrics as TorchServe's handlers report them; the collecting core is `zoo_handler.metrics`."""
