"""Inference engines of DeepSpeed."""

import os
from typing import Any


def get_ds_engine(model: Any, ctx: Any) -> Any:
    """Makes the engine that model-config.yaml describes: `deepspeed: {config: FILE, checkpoint: FILE}`."""
    settings = ctx.model_yaml_config.get("deepspeed")
    if not isinstance(settings, dict):
        raise ValueError("model {}: model-config.yaml must have a mapping `deepspeed`".format(ctx.model_name))
    config = _file(ctx, settings, "config")
    if config is None:
        raise ValueError(
            "model {}: model-config.yaml must name a file at deepspeed.config".format(ctx.model_name)
        )
    checkpoint = _file(ctx, settings, "checkpoint")
    try:
        import deepspeed
    except ImportError as cause:
        raise RuntimeError(
            "model {}: needs the Python package deepspeed, which can't be imported: {}".format(
                ctx.model_name, cause
            )
        ) from cause
    return deepspeed.init_inference(model, config=config, checkpoint=checkpoint)


def _file(ctx: Any, settings: Any, key: str) -> Any:
    name = settings.get(key)
    if not name:
        return None
    path = os.path.join(ctx.system_properties.get("model_dir"), name)
    if not os.path.exists(path):
        raise ValueError(
            "model {}: deepspeed.{} names {}, which is missing".format(ctx.model_name, key, path)
        )
    return path
