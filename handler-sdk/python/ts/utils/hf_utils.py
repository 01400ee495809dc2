"""Downloads of models from the Hugging Face hub."""

import logging
import os
from typing import Optional

logger = logging.getLogger(__name__)


def download_model(
    model_name: str,
    model_path: str = "model",
    revision: str = "main",
    use_auth_token: Optional[str] = None,
) -> str:
    """Downloads a model below `model_path`, in the layout of the hub's cache, and returns its directory.

    The token is `use_auth_token`, else what the environment or `huggingface-cli login` says.
    """
    try:
        from huggingface_hub import snapshot_download
    except ImportError as cause:
        raise RuntimeError(
            "downloading {}: needs the Python package huggingface_hub, which isn't installed".format(
                model_name
            )
        ) from cause
    os.makedirs(model_path, exist_ok=True)
    directory = snapshot_download(
        repo_id=model_name, revision=revision, cache_dir=model_path, token=use_auth_token or None
    )
    logger.info("%s is in %s", model_name, directory)
    return directory
