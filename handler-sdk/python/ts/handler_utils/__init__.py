"""Aids for writing handlers."""
