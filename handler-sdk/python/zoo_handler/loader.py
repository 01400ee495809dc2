"""Finds the handler that an archive names, as TorchServe's model loader does.

This module imports user code and calls constructors; it doesn't call ``initialize``: the worker does, because
the handler may be asynchronous.
"""

import os
import sys
from importlib import import_module, util

from zoo_handler import TORCHSERVE_VERSION
from zoo_handler.context import Context
from zoo_handler.errors import InvalidArchive

_ENVELOPES = "ts.torch_handler.request_envelope."
_BUILT_IN = "ts.torch_handler."
_ASYNC_FLAGS = 0x80 | 0x200  # CO_COROUTINE, CO_ASYNC_GENERATOR: inspect would cost more than the whole worker


class Handler:
    """An entry point ``handle(data, context)``, and ``initialize()`` which makes it ready.

    If ``instance`` is given, its ``handle`` is the entry point.
    """

    def __init__(self, handle, initialize, asynchronous=False, instance=None):
        self.handle = handle
        self.initialize = initialize
        self.asynchronous = asynchronous
        self.envelope = None  # a class that wraps the entry point
        self._instance = instance
        self.loop = None  # the event loop of an asynchronous handler
        self.decode = True  # whether values are decoded by content type
        self.concurrency = None  # the most batches that an asynchronous handler wants to have open
        self.signature = None  # what it says of its inputs and outputs

    def bind(self):
        """To be called when the handler is initialised: only then its entry point is certain.

        Handlers put another one in its place in ``initialize``, as ``self.handle = MicroBatching(self)``.
        """
        if self._instance is not None:
            self.handle = self._instance.handle
            self.asynchronous = self.asynchronous or _is_async(self.handle)
        if self.envelope is not None:
            self.handle = self.envelope(self.handle).handle


def make_context(load):
    """The Context that the Load frame describes."""
    model = load["model"]
    context = Context(
        model["name"],
        model.get("dir"),
        model.get("manifest") or {},
        load.get("batch_size", 1),
        load.get("gpu"),
        TORCHSERVE_VERSION,
        load.get("limit_max_image_pixels", True),
        model_yaml_config=model.get("config") or {},
    )
    context.set_sequence_headers(load.get("headers") or {})
    context.declare_metrics(load.get("metrics"))
    return context


def find_handler(load, context):
    """The handler of this model, wrapped in its envelope. Raises InvalidArchive if there can't be one."""
    model = load["model"]
    text = model.get("handler")
    if not text:
        raise InvalidArchive("model {} names no handler".format(model["name"]))
    path, _, name = text.partition(":")
    module = _import(path, model.get("dir") or os.getcwd())
    handler = _resolve(module, name, context)
    envelope = load.get("envelope")
    if envelope and not handler.decode:
        raise InvalidArchive(
            "a handler of zoo_handler reads requests itself: it takes no envelope, here " + envelope
        )
    if envelope:
        handler.envelope = _envelope(envelope)
    if load.get("asynchronous"):
        handler.asynchronous = True
    return handler


def _import(path, model_dir):
    """The module that a handler's text names: a file of the archive, any module, or a built-in handler."""
    name = os.path.basename(path)
    if name.endswith(".py"):
        name = name[:-3]
    directories = [os.path.join(model_dir, os.path.dirname(path)), model_dir]
    _add_to_path(directories)
    source = _source(name, directories)
    try:
        if source is not None:
            return _import_file(name, source)
        if not name.isidentifier():
            raise InvalidArchive(
                "handler {!r} is no file of the archive and no name of a module".format(path)
            )
        try:
            return import_module(name)
        except ModuleNotFoundError as cause:
            if cause.name != name:  # the handler is there; something that it needs isn't
                raise
        return _import_built_in(name, path)
    except SyntaxError as cause:
        raise InvalidArchive(
            "SyntaxError: {} ({}, line {})".format(cause.msg, cause.filename, cause.lineno)
        ) from cause


def _import_built_in(name, path):
    module = _BUILT_IN + name
    try:
        return import_module(module)
    except ModuleNotFoundError as cause:
        if cause.name not in (module, "ts", "ts.torch_handler"):
            raise
    raise InvalidArchive(
        "No module named {!r}: handler {!r} is neither a file of the archive nor a built-in handler".format(
            name, path
        )
    )


def _add_to_path(directories):
    """After the SDK, before everything else, as TorchServe's PYTHONPATH has them."""
    for directory in reversed(directories):
        directory = os.path.normpath(directory)
        if directory not in sys.path:
            sys.path.insert(1, directory)


def _source(name, directories):
    for directory in directories:
        path = os.path.normpath(os.path.join(directory, name + ".py"))
        if os.path.isfile(path):
            return path
    return None


def _import_file(name, source):
    """Imports a file of the archive, also if its name is that of a module which is imported already."""
    module = import_module(name) if name not in sys.modules or _is_from(sys.modules[name], source) else None
    if module is not None and _is_from(module, source):
        return module
    spec = util.spec_from_file_location("zoo_model_" + name, source)
    module = util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[spec.name]
        raise
    return module


def _is_from(module, source):
    path = getattr(module, "__file__", None)
    return path is not None and os.path.realpath(path) == os.path.realpath(source)


def _resolve(module, name, context):
    entry = getattr(module, name or "handle", None)
    if entry is not None and not isinstance(entry, type):
        # Function style: the call without data is the initialisation.
        return Handler(entry, lambda: entry(None, context), _is_async(entry))
    return _instance(entry if entry is not None else _only_class(module, name), context)


def _only_class(module, name):
    classes = list(_defined_classes(module))
    own = [kind for kind in classes if _is_own(kind)]
    if len(own) == 1:
        return own[0]
    if len(classes) != 1:
        text = "Expected only one class in custom service code or a function entry point {}".format(classes)
        if name:
            text += " (there is no {!r} in {})".format(name, module.__name__)
        raise InvalidArchive(text)
    return classes[0]


def _defined_classes(module):
    """The classes that a module defines itself, in the order in which it does."""
    for value in list(vars(module).values()):
        if isinstance(value, type) and value.__module__ == module.__name__:
            yield value


def _is_own(kind):
    """Whether a class is written for our API. If nobody has imported that, it isn't."""
    api = sys.modules.get("zoo_handler.handler")
    return api is not None and issubclass(kind, api.Handler)


def _instance(kind, context):
    if _is_own(kind):
        return sys.modules["zoo_handler.handler"].adapt(kind(), context, _is_async)
    if not hasattr(kind, "handle"):
        raise InvalidArchive("Expect handle method in class {}".format(kind))
    instance = kind()
    if not hasattr(instance, "initialize"):
        raise InvalidArchive("Expect initialize method in class {}".format(kind))
    return Handler(
        instance.handle, lambda: instance.initialize(context), _is_async(instance.handle), instance
    )


def _is_async(entry):
    """Whether calling this gives a coroutine or an asynchronous generator."""
    for _ in range(8):  # wrappers: a method, a functools.partial, an object that can be called
        code = getattr(entry, "__code__", None)
        if code is not None:
            return bool(code.co_flags & _ASYNC_FLAGS)
        inner = getattr(entry, "__func__", None) or getattr(entry, "func", None)
        entry = inner or getattr(type(entry), "__call__", None)
    return False


def _envelope(name):
    module = _ENVELOPES + name
    try:
        found = import_module(module)
    except ModuleNotFoundError as cause:
        if cause.name != module:
            raise
        raise InvalidArchive("There is no request envelope {!r}".format(name)) from None
    for kind in _defined_classes(found):
        return kind
    raise InvalidArchive("{} defines no envelope".format(module))
