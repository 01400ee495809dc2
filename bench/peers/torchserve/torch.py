"""A stand-in for torch, placed only into the environment that this suite makes for TorchServe.

TorchServe's worker imports torch to recognise tensors among a handler's answers, even where there are none.
The no-op handler has none, so a module with the two names that the worker looks at is enough, in place of
gigabytes of torch. The memory measured is that of a worker without torch, as for every other contender.
"""


class Tensor:
    """No value is an instance, so no answer is taken for a tensor."""


def save(obj, file):
    """Only ever called for a tensor."""
    raise TypeError("this environment has a stand-in for torch: handlers can't answer tensors")
