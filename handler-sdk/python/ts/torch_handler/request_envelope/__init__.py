"""Envelopes: what they take off requests before the handler sees them, and put around its answers."""
