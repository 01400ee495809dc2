"""Ready-made pipelines; the name has a hyphen, so they are imported by `importlib.import_module`."""
