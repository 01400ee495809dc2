"""How handlers are found and initialised, and what the server hears when they can't be."""

import pytest

from peer import part

CLASS = """
class MyHandler:
    def initialize(self, context):
        self.name = context.model_name
    def handle(self, data, context):
        return [self.name] * len(data)
"""


@pytest.mark.parametrize(
    "handler, files",
    [
        ("h.py", {"h.py": "def handle(data, context):\n    return data and ['m']\n"}),
        ("h", {"h.py": "def handle(data, context):\n    return data and ['m']\n"}),
        ("h:serve", {"h.py": "def serve(data, context):\n    return data and ['m']\n"}),
        ("h.py:serve", {"h.py": "def serve(data, context):\n    return data and ['m']\n"}),
        (
            "sub/h.py:serve",
            {
                "sub/h.py": "import beside\nserve = beside.serve\n",
                "sub/beside.py": "def serve(data, context):\n    return data and ['m']\n",
            },
        ),
        ("/build/machine/h.py", {"h.py": CLASS}),
        ("h.py", {"h.py": CLASS}),
        ("h.py:MyHandler", {"h.py": CLASS + "class Other: pass\n"}),
        ("h.py:nothing", {"h.py": CLASS}),
        (
            "h.py",
            {
                "h.py": "from base import Base\n" + CLASS.replace("MyHandler", "MyHandler(Base)"),
                "base.py": "class Base: pass\n",
            },
        ),
        (
            "h.py:handle",
            {
                "h.py": CLASS + "_service = MyHandler()\ndef handle(data, context):\n"
                "    if data is None:\n        return _service.initialize(context)\n"
                "    return _service.handle(data, context)\n"
            },
        ),
        ("json.py", {"json.py": "def handle(data, context):\n    return data and ['m']\n"}),
        (
            "wire.py",
            {"wire.py": "import zoo_handler.wire\ndef handle(data, context):\n    return data and ['m']\n"},
        ),
        ("my-handler.py", {"my-handler.py": CLASS}),
        ("in_ts", {"ts_path/unused.py": ""}),
    ],
)
def test_handler_resolution(start, tmp_path, handler, files):
    environment = {}
    if handler == "in_ts":  # a module that is neither in the archive nor built in, but importable
        (tmp_path / "extra").mkdir()
        (tmp_path / "extra" / "in_ts.py").write_text(CLASS)
        environment["PYTHONPATH"] = str(tmp_path / "extra")
    worker = start(files=files, handler=handler, environment=environment)
    assert worker.text(part(b"")) == "m"


def test_function_style_is_initialised_with_none(start):
    worker = start(
        "calls = []\n"
        "def handle(data, context):\n"
        "    calls.append((data, context.model_name))\n"
        "    return data and [repr(calls[0])]\n"
    )
    assert worker.text(part(b"")) == "(None, 'm')"


REPLACED = """
class Entry:
    def __init__(self, kind):
        self.kind = kind
    def __call__(self, data, context):
        return [self.kind + str(row["body"]) for row in data]

class Handler:
    def __init__(self):
        self.handle = Entry("too early ")
    def initialize(self, context):
        self.handle = Entry("in time ")
    def handle(self, data, context):
        raise AssertionError("the instance has a handle of its own")
"""
ASYNCHRONOUS = """
class Handler:
    def handle(self, data, context):
        raise AssertionError("initialize has put another one in its place")
    def initialize(self, context):
        self.handle = self.later
    async def later(self, data, context):
        return ["in time " + str(row["body"]) for row in data]
"""


@pytest.mark.parametrize("source", [REPLACED, ASYNCHRONOUS], ids=["object", "coroutine"])
@pytest.mark.parametrize("load", [{}, {"asynchronous": True}], ids=["", "asynchronous"])
def test_the_entry_point_is_that_after_initialize(start, source, load):
    worker = start(source, handler="h.py:Handler", **load)
    assert worker.text(part(b"1", content_type="text/plain")) == "in time 1"
    worker.drain()


def test_an_envelope_wraps_the_entry_point_after_initialize(start):
    worker = start(REPLACED.replace('row["body"]', "row"), handler="h.py:Handler", envelope="body")
    assert worker.text(part(b"1", content_type="text/plain")) == "in time 1"


def failed(start, source="", **rest):
    worker = start(source, ready=False, **rest)
    return worker.expect_load_failed(), worker


@pytest.mark.parametrize(
    "source, kind, message",
    [
        ("x = 1\n", "invalid", "Expected only one class in custom service code or a function entry point []"),
        ("class A: pass\nclass B: pass\n", "invalid", "Expected only one class in custom service code"),
        ("class A: pass\n", "invalid", "Expect handle method in class <class 'h.A'>"),
        (
            "class A:\n    def handle(self, data, context): pass\n",
            "invalid",
            "Expect initialize method in class",
        ),
        ("def broken(:\n", "invalid", "SyntaxError: "),
        (
            "import no_such_dependency\n" + CLASS,
            "error",
            "ModuleNotFoundError: No module named 'no_such_dependency'",
        ),
        (
            "from json import no_such_name\n" + CLASS,
            "error",
            "ImportError: cannot import name 'no_such_name'",
        ),
        ("raise RuntimeError('first\\nsecond')\n", "error", "RuntimeError: first"),
        ("raise ValueError\n", "error", "ValueError"),
        ("def handle(data, context):\n    raise MemoryError\n", "memory", "MemoryError"),
        (
            "def handle(data, context):\n    raise RuntimeError('CUDA error: out')\n",
            "memory",
            "RuntimeError: CUDA error",
        ),
        ("import sys\ndef handle(data, context):\n    sys.exit(3)\n", "error", "SystemExit: 3"),
        ("import sys\nsys.exit()\n", "error", "SystemExit"),
    ],
)
def test_load_failures(start, source, kind, message):
    found, worker = failed(start, source)
    assert found["kind"] == kind
    assert found["message"].startswith(message)
    assert "\n" not in found["message"]
    assert found["trace"].startswith("Traceback")
    assert found["message"].split(":")[0] in worker.log()


@pytest.mark.parametrize("handler", ["no_such", "no_such.py:handle", "dir/no_such.py", "not a name"])
def test_no_such_handler(start, handler):
    found, _ = failed(start, CLASS, handler=handler)
    assert found["kind"] == "invalid"
    assert "no_such" in found["message"] or "not a name" in found["message"]


@pytest.mark.parametrize("handler", [None, ""])
def test_no_handler_named(start, handler):
    found, _ = failed(start, CLASS, handler=handler)
    assert (found["kind"], found["message"]) == ("invalid", "model m names no handler")


def test_the_first_cause_is_kept(start):
    """TorchServe hides a missing dependency behind 'No module named ts.torch_handler.h'."""
    found, worker = failed(
        start, "import beside\n" + CLASS, files={"beside.py": "import no_such_dependency\n"}
    )
    assert "no_such_dependency" in found["message"]
    assert "ts.torch_handler" not in worker.log()


def test_the_first_cause_of_a_module_outside_of_the_archive_is_kept(start, tmp_path):
    (tmp_path / "outside.py").write_text("import no_such_dependency\n" + CLASS)
    found, _ = failed(start, CLASS, handler="outside", environment={"PYTHONPATH": str(tmp_path)})
    assert found["kind"] == "error"
    assert found["message"] == "ModuleNotFoundError: No module named 'no_such_dependency'"


@pytest.mark.parametrize("envelope, answer", [("shout", "<M>"), (None, "m")])
def test_envelope(start, tmp_path, envelope, answer):
    # An envelope of the user's: importable as ts.torch_handler.request_envelope.shout, made known by a
    # .pth-like hook.
    source = (
        "import sys, types\n"
        "module = types.ModuleType('ts.torch_handler.request_envelope.shout')\n"
        "exec(open('envelope.txt').read(), module.__dict__)\n"
        "sys.modules[module.__name__] = module\n"
        "def handle(data, context):\n"
        "    return data and [context.model_name] * len(data)\n"
    )
    envelope_source = (
        "class Envelope:\n"
        "    def __init__(self, inner): self.inner = inner\n"
        "    def handle(self, data, context):\n"
        "        return ['<' + text.upper() + '>' for text in self.inner(data, context)]\n"
        "class Other: pass\n"
    )
    worker = start(source, files={"envelope.txt": envelope_source}, envelope=envelope)
    assert worker.text(part(b"")) == answer


def test_unknown_envelope(start):
    found, _ = failed(start, CLASS, envelope="no_such_envelope")
    assert found["kind"] == "invalid"
    assert "no_such_envelope" in found["message"]


def test_the_sdk_wins_over_the_model_directory_and_safe_path_mode(start):
    files = {
        "h.py": "import zoo_handler\ndef handle(data, context):\n    return data and [zoo_handler.__file__]\n",
        "zoo_handler/__init__.py": "raise RuntimeError('not this one')\n",
    }
    from conftest import SDK

    for environment in ({}, {"PYTHONSAFEPATH": "1"}):
        worker = start(files=files, environment=environment)
        assert worker.text(part(b"")).startswith(SDK)


def test_a_long_trace_fits_its_frame(start):
    found, _ = failed(start, "raise RuntimeError('x' * 3000000)\n")
    assert len(found["trace"]) <= 64 * 1024
    assert len(found["message"]) <= 8 * 1024
