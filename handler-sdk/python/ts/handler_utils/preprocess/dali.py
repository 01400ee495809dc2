"""Decoding and resizing of images on the GPU, by a pipeline of NVIDIA DALI that the archive brings."""

import os
from typing import Any, Dict, List

_KEYS = ("device_id", "batch_size", "num_threads", "seed", "pipeline_file")


def dali_settings(context: Any) -> Dict[str, Any]:
    """The mapping `dali` of model-config.yaml."""
    settings = context.model_yaml_config.get("dali")
    if not isinstance(settings, dict):
        raise ValueError("model {}: model-config.yaml must have a mapping `dali`".format(context.model_name))
    missing = [key for key in _KEYS if key not in settings and key != "seed"]
    if missing:
        raise ValueError(
            "model {}: model-config.yaml: dali lacks {}".format(context.model_name, ", ".join(missing))
        )
    return settings


def load_pipeline(context: Any) -> Any:
    """The pipeline in `pipeline_file`, ready to run."""
    settings = dali_settings(context)
    path = os.path.join(context.system_properties.get("model_dir"), settings["pipeline_file"])
    if not os.path.isfile(path):
        raise ValueError(
            "model {}: dali.pipeline_file names {}, which is missing".format(context.model_name, path)
        )
    try:
        from nvidia.dali.pipeline import Pipeline
    except ImportError as cause:
        raise RuntimeError(
            "model {}: needs NVIDIA DALI (Python package nvidia-dali), which can't be imported: {}".format(
                context.model_name, cause
            )
        ) from cause
    return Pipeline.deserialize(
        filename=path,
        batch_size=settings["batch_size"],
        num_threads=settings["num_threads"],
        device_id=settings["device_id"],
        seed=settings.get("seed", -1),
        prefetch_queue_depth=1,
    )


def run_pipeline(pipeline: Any, images: List[bytes], device: Any) -> Any:
    """Encoded images in, one tensor on the device out."""
    import numpy
    from nvidia.dali.plugin.pytorch import DALIGenericIterator, LastBatchPolicy

    pipeline.feed_input("my_source", [numpy.frombuffer(image, dtype=numpy.uint8) for image in images])
    batches = DALIGenericIterator([pipeline], ["data"], last_batch_policy=LastBatchPolicy.PARTIAL)
    return next(batches)[0]["data"].to(device)
