"""Micro-batching: order, threads, indices, failures."""

import threading
import types

import pytest

from ts.handler_utils.micro_batching import MicroBatching


class Handler:
    """Adds a mark in each stage; remembers who did what."""

    def __init__(self):
        self.context = None
        self.seen = []
        self.gate = None
        self.micro = MicroBatching(self, 2)

    def _is_describe(self):
        return False

    def _is_explain(self):
        return False

    def preprocess(self, data):
        self.seen.append(("preprocess", self.micro.get_micro_batch_idx(), threading.current_thread().name))
        return [row + 1 for row in data]

    def inference(self, data):
        if self.gate is not None:
            self.gate(self.micro.get_micro_batch_idx())
        return [row * 10 for row in data]

    def postprocess(self, data):
        return [str(row) for row in data]


def context():
    times = []
    metrics = types.SimpleNamespace(times=times, add_time=lambda name, *_: times.append(name))
    return types.SimpleNamespace(metrics=metrics)


@pytest.mark.parametrize("rows", [0, 1, 2, 5, 16])
@pytest.mark.parametrize("threads", [1, 3])
def test_answers_keep_the_order(rows, threads):
    handler = Handler()
    handler.micro.parallelism = {"preprocess": threads, "inference": threads, "postprocess": threads}
    given = context()
    assert handler.micro(list(range(rows)), given) == [str((row + 1) * 10) for row in range(rows)]
    assert sorted(index for _, index, _ in handler.seen) == list(range((rows + 1) // 2))
    assert given.metrics.times == ["HandlerTime"]
    assert handler.context is given
    handler.micro.shutdown()


def test_a_slow_part_is_overtaken_and_order_is_restored():
    handler = Handler()
    handler.micro.parallelism = {"inference": 2}
    overtaken = threading.Event()

    def gate(part):
        if part == 0:
            assert overtaken.wait(30)
        else:
            overtaken.set()

    handler.gate = gate
    assert handler.micro([0, 1, 2, 3], context()) == ["10", "20", "30", "40"]
    handler.micro.shutdown()


@pytest.mark.parametrize("failure", [ValueError("bad"), SystemExit(3)])
def test_failures_reach_the_caller_and_the_next_batch_works(failure):
    handler = Handler()

    def gate(part):
        if part == 1:
            raise failure

    handler.gate = gate
    with pytest.raises(type(failure)):
        handler.micro([0, 1, 2, 3, 4, 5], context())
    handler.gate = None
    assert handler.micro([0], context()) == ["10"]
    handler.micro.shutdown()


def test_after_a_failure_the_rest_is_not_begun():
    handler = Handler()

    def fail(data):
        handler.seen.append(handler.micro.get_micro_batch_idx())
        raise ValueError("bad")

    handler.preprocess = fail
    with pytest.raises(ValueError, match="bad"):
        handler.micro([0, 1, 2, 3, 4, 5], context())
    assert handler.seen == [0]
    handler.micro.shutdown()


def test_threads_end_with_shutdown():
    handler = Handler()
    handler.micro([0], context())
    named = [thread for thread in threading.enumerate() if thread.name.startswith("micro-")]
    assert named
    handler.micro.shutdown()
    assert not any(thread.is_alive() for thread in named)


def test_settings():
    handler = Handler()
    assert handler.micro.parallelism == {"preprocess": 1, "inference": 1, "postprocess": 1}
    handler.micro.parallelism = {"inference": 4}
    assert handler.micro.parallelism == {"preprocess": 1, "inference": 4, "postprocess": 1}
    for wrong in ({"infer": 1}, {"inference": 0}, {"inference": "2"}, {"inference": True}):
        with pytest.raises(ValueError, match="parallelism"):
            handler.micro.parallelism = wrong
    with pytest.raises(ValueError, match="micro_batch_size"):
        MicroBatching(handler, 0)


def test_explanations_and_descriptions_are_not_cut():
    handler = Handler()
    handler._is_explain = lambda: True
    handler.explain_handle = lambda prepared, raw: [prepared, raw]
    assert handler.micro([1, 2, 3], context()) == [[2, 3, 4], [1, 2, 3]]
    handler._is_describe = lambda: True
    handler.describe_handle = lambda: "me"
    assert handler.micro([1], context()) == ["me"]
