"""Zoo's Python SDK: the worker that runs handlers, and the API for writing new ones.

Reading order of the worker: ``worker`` (the loop), ``link`` (the socket), ``inbox`` (what has arrived),
``outbox`` (what will be sent), ``wire`` (the bytes of both), ``item`` and ``headers`` (one request),
``context`` (what handlers see), ``loader`` (finding the handler), ``service`` (calling it), ``replies`` and
``answer`` (what it returned), ``stream`` (answers in chunks), ``aio`` (asynchronous handlers), ``metrics``,
``errors`` and ``log``. For new handlers: ``handler`` (the API) and ``trial`` (trying one without a server).

Names are imported when they are first used, because a worker pays for each module in memory and in start
time.
"""

__version__ = "0.1.0"

# What handlers read in system_properties["server_version"]: the TorchServe that their code was written for.
TORCHSERVE_VERSION = "0.12.0"

_HOMES = {
    "Context": "zoo_handler.context",
    "Handler": "zoo_handler.handler",
    "Part": "zoo_handler.handler",
    "PredictionException": "zoo_handler.errors",
    "Request": "zoo_handler.handler",
    "RequestError": "zoo_handler.handler",
    "Response": "zoo_handler.handler",
    "send_intermediate_predict_response": "zoo_handler.stream",
}

__all__ = ["TORCHSERVE_VERSION", "__version__"] + sorted(_HOMES)


def __getattr__(name):
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError("module 'zoo_handler' has no attribute {!r}".format(name))
    from importlib import import_module

    return getattr(import_module(home), name)
