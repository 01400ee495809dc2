"""Pipelines of PiPPy: a model cut into stages, one for each process."""

from typing import Any, Dict, List

_DEFAULT_RPC_TIMEOUT = 1800  # seconds
_DEFAULT_RPC_THREADS = 512


def pippy_settings(ctx: Any) -> Dict[str, Any]:
    """The mapping `pippy` of model-config.yaml, with defaults filled in."""
    settings = ctx.model_yaml_config.get("pippy")
    if not isinstance(settings, dict):
        raise ValueError("model {}: model-config.yaml must have a mapping `pippy`".format(ctx.model_name))
    return dict(
        {"chunks": 1, "rpc_timeout": _DEFAULT_RPC_TIMEOUT, "num_worker_threads": _DEFAULT_RPC_THREADS},
        **settings,
    )


def initialize_rpc_workers(local_rank: int, world_size: int, ctx: Any) -> None:
    """Joins this process to the others of its model, and maps its GPUs to theirs."""
    settings = pippy_settings(ctx)
    import torch
    from torch.distributed import rpc

    if not torch.cuda.is_available():
        raise RuntimeError("model {}: a pippy model needs GPUs, and torch sees none".format(ctx.model_name))
    options = rpc.TensorPipeRpcBackendOptions(
        num_worker_threads=settings["num_worker_threads"], rpc_timeout=settings["rpc_timeout"]
    )
    for rank in range(world_size):
        options.set_device_map("worker{}".format(rank), {local_rank: rank})
    rpc.init_rpc(
        "worker{}".format(local_rank), rank=local_rank, world_size=world_size, rpc_backend_options=options
    )


def get_pipeline_driver(model: Any, world_size: int, ctx: Any) -> Any:
    """Cuts a model into `world_size` stages, and gives the one that drives them."""
    settings = pippy_settings(ctx)
    inputs: List[str] = settings.get("input_names") or []
    if not inputs:
        raise ValueError("model {}: model-config.yaml must list pippy.input_names".format(ctx.model_name))
    try:
        from pippy import compile as pippy_compile
        from pippy import split_into_equal_size
        from pippy.hf import PiPPyHFTracer
    except ImportError as cause:
        raise RuntimeError(
            "model {}: needs the Python package torchpippy, which can't be imported: {}".format(
                ctx.model_name, cause
            )
        ) from cause
    import inspect

    signature = inspect.signature(model.forward)
    concrete = {name: p.default for name, p in signature.parameters.items() if name not in inputs}
    return pippy_compile(
        model,
        num_ranks=world_size,
        num_chunks=settings["chunks"],
        schedule="FillDrain",
        split_policy=split_into_equal_size(world_size),
        tracer=PiPPyHFTracer(),
        concrete_args=concrete,
        index_filename=settings.get("index_filename"),
        checkpoint_prefix=settings.get("checkpoint_prefix"),
    )
