"""Handlers of models that DeepSpeed spreads over GPUs."""

import os
from abc import ABC
from typing import Any

from ..base_handler import BaseHandler


class BaseDeepSpeedHandler(BaseHandler, ABC):
    """Takes the GPU of this process; the subclass makes the model and calls `get_ds_engine`."""

    def initialize(self, ctx: Any) -> None:
        if "LOCAL_RANK" not in os.environ:
            raise RuntimeError(
                "model {}: LOCAL_RANK not set: a deepspeed model runs under torchrun, so its "
                "model-config.yaml needs `parallelType: tp` and `torchrun: {{nproc-per-node: N}}`".format(
                    ctx.model_name
                )
            )
        self.context = ctx
        self.manifest = ctx.manifest
        self.model_yaml_config = ctx.model_yaml_config or {}
        self.local_rank = int(os.environ["LOCAL_RANK"])
        self.device = self.local_rank
