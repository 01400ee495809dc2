"""Runs the stages of a handler at the same time on parts of a batch.

A handler says `self.handle = MicroBatching(self, 4)` in its `__init__` or `initialize`. Each batch is cut
into parts, and while one part is in `inference`, the next is in `preprocess` and the one before it in
`postprocess`. Answers keep the order of requests.
"""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Dict, List, Optional

_STAGES = ("preprocess", "inference", "postprocess")


class _Run:
    """One batch on its way: results by part, and the first thing that went wrong."""

    def __init__(self, parts: int) -> None:
        self.results: List[Any] = [None] * parts
        self.failure: Optional[BaseException] = None
        self._open = parts
        self._changed = threading.Condition()

    def finish(self, part: int, result: Any, failure: Optional[BaseException]) -> None:
        with self._changed:
            self.results[part] = result
            self.failure = self.failure or failure
            self._open -= 1
            self._changed.notify_all()

    def wait(self) -> List[Any]:
        """Returns when no part runs any more, also after a failure: nothing outlives its batch."""
        with self._changed:
            self._changed.wait_for(lambda: self._open == 0)
        if self.failure is not None:
            raise self.failure
        return self.results


class MicroBatching:
    """The `handle` of a handler whose stages run in threads of their own."""

    def __init__(
        self, parent_handler: Any, micro_batch_size: int = 1, parallelism: Optional[Dict[str, int]] = None
    ) -> None:
        if not isinstance(micro_batch_size, int) or micro_batch_size < 1:
            raise ValueError("micro_batch_size {!r}: must be an integer above 0".format(micro_batch_size))
        self.handler = parent_handler
        self.micro_batch_size = micro_batch_size
        self._thread = threading.local()
        self._pools: List[ThreadPoolExecutor] = []
        self._parallelism = dict.fromkeys(_STAGES, 1)
        self.parallelism = parallelism or {}

    @property
    def parallelism(self) -> Dict[str, int]:
        """Threads of each stage."""
        return dict(self._parallelism)

    @parallelism.setter
    def parallelism(self, parallelism: Dict[str, int]) -> None:
        for stage, threads in parallelism.items():
            if stage not in _STAGES:
                raise ValueError(
                    "parallelism: stage {!r} must be one of {}".format(stage, ", ".join(_STAGES))
                )
            if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
                raise ValueError("parallelism: {} = {!r}: must be an integer above 0".format(stage, threads))
        self.shutdown()
        self._parallelism.update(parallelism)

    def get_micro_batch_idx(self) -> int:
        """Within a stage: which part of the batch this call is about, from 0."""
        return getattr(self._thread, "part", 0)

    def shutdown(self) -> None:
        """Ends the threads; the next batch starts new ones."""
        pools, self._pools = self._pools, []
        for pool in pools:
            pool.shutdown(wait=True)

    def __call__(self, data: List[Any], context: Any) -> Any:
        return self.handle(data, context)

    def handle(self, data: List[Any], context: Any) -> Any:
        """What `BaseHandler.handle` does, part by part."""
        started = time.perf_counter()
        handler = self.handler
        handler.context = context
        if handler._is_describe():
            output = [handler.describe_handle()]
        elif handler._is_explain():
            output = handler.explain_handle(handler.preprocess(data), data)
        else:
            output = self._run(data)
        context.metrics.add_time("HandlerTime", round((time.perf_counter() - started) * 1000, 2), None, "ms")
        return output

    def _run(self, data: List[Any]) -> List[Any]:
        size = self.micro_batch_size
        parts = [data[start : start + size] for start in range(0, len(data), size)]
        if not self._pools:
            # Made by the first batch and not before: threads don't survive the fork of a prepared worker.
            self._pools = [
                ThreadPoolExecutor(self._parallelism[stage], "micro-" + stage) for stage in _STAGES
            ]
        run = _Run(len(parts))
        for part, rows in enumerate(parts):
            self._pools[0].submit(self._advance, run, part, 0, rows)
        return [row for rows in run.wait() for row in rows]

    def _advance(self, run: _Run, part: int, stage: int, value: Any) -> None:
        self._thread.part = part
        try:
            if run.failure is not None:
                run.finish(part, None, None)
                return
            value = getattr(self.handler, _STAGES[stage])(value)
            if stage + 1 < len(_STAGES):
                self._pools[stage + 1].submit(self._advance, run, part, stage + 1, value)
            else:
                run.finish(part, value, None)
        except BaseException as failure:  # SystemExit too: raised again in the thread of the batch
            run.finish(part, None, failure)
