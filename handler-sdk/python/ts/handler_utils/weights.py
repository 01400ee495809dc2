"""Loading of files that `torch.save` wrote, without running code from them unless the archive is trusted."""

import os
import pickle
from typing import Any, Optional

import torch

SWITCH = "ZOO_ALLOW_PICKLE"


def load_weights(path: str, map_location: Any = None, config: Optional[dict] = None) -> Any:
    """Loads tensors, and containers of tensors and plain values.

    Anything else in the file is refused, unless the model's configuration says
    `handler: {allow_pickle: true}` or the environment `ZOO_ALLOW_PICKLE=true`.
    """
    if _allows_pickle(config):
        return torch.load(path, map_location=map_location, weights_only=False)
    try:
        return torch.load(path, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as cause:
        reason = str(cause).strip().splitlines()
        raise RuntimeError(
            "{}: holds more than tensors, and loading that runs code from the file. If you trust this "
            "archive, put `handler: {{allow_pickle: true}}` into its model-config.yaml, or set {}=true for "
            "all models. ({})".format(path, SWITCH, reason[0] if reason else type(cause).__name__)
        ) from cause


def _allows_pickle(config: Optional[dict]) -> bool:
    section = (config or {}).get("handler")
    if isinstance(section, dict) and "allow_pickle" in section:
        return section["allow_pickle"] is True
    return os.environ.get(SWITCH, "").lower() == "true"
