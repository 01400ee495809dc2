"""Handlers of models that PiPPy cuts into stages."""

import os
from abc import ABC
from typing import Any

from ts.handler_utils.distributed.pt_pippy import initialize_rpc_workers

from ..base_handler import BaseHandler


class BasePippyHandler(BaseHandler, ABC):
    """Joins the processes that torchrun has started for one worker; the subclass loads the model."""

    def initialize(self, ctx: Any) -> None:
        missing = [name for name in ("LOCAL_RANK", "WORLD_SIZE") if name not in os.environ]
        if missing:
            raise RuntimeError(
                "model {}: {} not set: a pippy model runs under torchrun, so its model-config.yaml needs "
                "`parallelType: pp` and `torchrun: {{nproc-per-node: N}}`".format(
                    ctx.model_name, " and ".join(missing)
                )
            )
        self.context = ctx
        self.manifest = ctx.manifest
        self.model_yaml_config = ctx.model_yaml_config or {}
        self.local_rank = int(os.environ["LOCAL_RANK"])
        self.world_size = int(os.environ["WORLD_SIZE"])
        initialize_rpc_workers(self.local_rank, self.world_size, ctx)
        self.device = self.local_rank % self.world_size
