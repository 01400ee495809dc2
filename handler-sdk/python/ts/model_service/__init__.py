"""Base classes from before TorchServe, kept for old handlers."""
