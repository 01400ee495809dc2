"""A decorator that logs how long calls take."""

import functools
import logging
import time
from typing import Any, Callable

logger = logging.getLogger(__name__)


def timeit(func: Callable[..., Any]) -> Callable[..., Any]:
    """Logs the duration of each call."""

    @functools.wraps(func)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        started = time.perf_counter()
        try:
            return func(*args, **kwargs)
        finally:
            logger.info("%s took %.4f s", func.__name__, time.perf_counter() - started)

    return wrapper
