"""The manifest of an archive, as Python objects."""
