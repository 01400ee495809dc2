"""Times of the stages of a handler, as metrics."""

import functools
import sys
import time
from typing import Any, Callable


def timed(func: Callable[..., Any]) -> Callable[..., Any]:
    """Reports each call of a handler's method as `ts_handler_<name>` if its model-config.yaml says
    `handler: {profile: true}`. Otherwise it costs one look-up."""

    metric = "ts_handler_" + func.__name__

    @functools.wraps(func)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not _wants_profile(self):
            return func(self, *args, **kwargs)
        _wait_for_gpu()
        started = time.perf_counter()
        result = func(self, *args, **kwargs)
        _wait_for_gpu()
        self.context.metrics.add_time(metric, (time.perf_counter() - started) * 1000, None, "ms")
        return result

    return wrapper


def _wants_profile(handler: Any) -> bool:
    context = getattr(handler, "context", None)
    config = getattr(context, "model_yaml_config", None)
    section = config.get("handler") if config else None
    return isinstance(section, dict) and bool(section.get("profile"))


def _wait_for_gpu() -> None:
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()
