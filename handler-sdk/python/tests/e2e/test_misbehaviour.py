"""Handlers that do what they mustn't: the client gets a clear answer, the log the cause, the next request its due."""

import pytest

from zoo import eventually, exists

UNRULY = """
import os
import subprocess
import sys
import threading
import time


def handle(data, context):
    if data is None:
        return None
    todo, _, rest = data[0]["body"].decode().partition(" ")
    return globals()[todo](rest, context)


def well(_rest, _context):
    return ["well"]


def pid(_rest, _context):
    return [str(os.getpid())]


def text(_rest, _context):
    return "no list"


def none(_rest, _context):
    return None


def many(_rest, _context):
    return ["one", "two"]


def unserializable(_rest, _context):
    return [{1, 2}]


def raising(rest, _context):
    raise ValueError("the cause of it: " + rest)


def leave(rest, _context):
    sys.exit(int(rest))


def abort(_rest, _context):
    os.abort()


def shout(_rest, _context):
    print("begin" + "x" * 1000000 + "end of a long line")
    sys.stderr.write("y" * 1000000)
    print("a line after it", flush=True)
    return ["said"]


def threads(_rest, _context):
    for _ in range(3):
        threading.Thread(target=time.sleep, args=(1000,)).start()
    return ["started"]


def fork(_rest, _context):
    child = os.fork()
    if child == 0:
        return ["from the child"]  # and on into the worker's loop, as if it were the worker
    _, status = os.waitpid(child, 0)
    return ["from the parent"]


def quiet_fork(_rest, _context):
    child = os.fork()
    if child == 0:
        os._exit(5)
    return [str(os.WEXITSTATUS(os.waitpid(child, 0)[1]))]


def orphan(_rest, _context):
    return [str(subprocess.Popen(["sleep", "1000"]).pid)]


def write(rest, context):
    folder = context.system_properties["model_dir"]
    for name in ("handler.py", "data.txt"):
        path = os.path.join(folder, name)
        try:
            with open(path, "w") as file:
                file.write(rest)
        except OSError:
            os.remove(path)
    with open(os.path.join(folder, "new.txt"), "w") as file:
        file.write(rest)
    return ["written"]


def read(_rest, context):
    with open(os.path.join(context.system_properties["model_dir"], "data.txt")) as file:
        return [file.read()]
"""
ARCHIVE = {"handler.py": UNRULY, "data.txt": "as packed"}


@pytest.fixture(scope="module")
def unruly(zoo):
    """Asks the unruly model; its archive is `unruly.mar`."""
    zoo.pack("unruly", ARCHIVE, "--extra-files", "data.txt", handler="handler.py:handle")
    zoo.register("unruly.mar")
    yield lambda text, model="unruly": zoo.predict(model, text.encode())
    zoo.drop("unruly")


@pytest.fixture
def same_worker(zoo, unruly):
    """Checks that the worker survives the test and works."""
    pid = unruly("pid").text
    yield
    assert unruly("pid").text == pid


@pytest.mark.usefixtures("same_worker")
@pytest.mark.parametrize(
    "todo, message, logged",
    [
        ("text", "Invalid model predict output", "model: unruly, Invalid return type: <class 'str'>."),
        ("none", "Invalid model predict output", "model: unruly, Invalid return type: <class 'NoneType'>."),
        (
            "many",
            "number of batch response mismatched",
            "model: unruly, number of batch response mismatched, expect: 1, got: 2.",
        ),
        (
            "unserializable",
            "Unsupported model output data type.",
            "Object of type set is not JSON serializable",
        ),
        ("raising x", "Prediction failed", "ValueError: the cause of it: x"),
    ],
)
def test_an_answer_that_is_none(zoo, unruly, todo, message, logged):
    reply = unruly(todo)
    assert reply.status == 503
    assert reply.json() == {"code": 503, "type": "InternalServerException", "message": message}
    zoo.logged(logged)


@pytest.mark.parametrize(
    "todo, cause", [("leave 3", "sys.exit(3)"), ("leave 0", "sys.exit(0)"), ("abort", "")]
)
def test_a_worker_that_leaves_is_replaced(zoo, unruly, todo, cause):
    before = int(unruly("pid").text)
    reply = unruly(todo)
    assert (reply.status, reply.json()["message"]) == (500, "Worker died."), zoo.log()
    after = int(unruly("pid").text)
    assert after != before
    assert not exists(before)
    worker = zoo.worker("unruly")
    assert (worker["status"], worker["pid"]) == ("READY", after)
    assert worker["lastFailure"], "describe tells why the one before it ended"
    if cause:
        zoo.logged("The handler has called {}".format(cause))


@pytest.mark.usefixtures("same_worker")
def test_lines_of_a_megabyte(zoo, unruly):
    assert unruly("shout").text == "said"
    zoo.logged("a line after it", out=True)
    long = zoo.logged("beginxxxx", out=True)
    assert len(long) < 100_000, "a long line is cut"


@pytest.mark.usefixtures("same_worker")
@pytest.mark.parametrize("todo, answer", [("fork", "from the parent"), ("quiet_fork", "5")])
def test_forks(unruly, todo, answer):
    for _ in range(3):
        assert unruly(todo).text == answer


@pytest.mark.parametrize("todo", ["threads", "orphan"])
def test_what_is_left_running_goes_with_the_model(zoo, unruly, todo):
    zoo.register("unruly.mar", model_name="left")
    worker = int(unruly("pid", "left").text)
    answer = unruly(todo, "left").text
    assert unruly("well", "left").text == "well"
    zoo.drop("left")
    eventually(lambda: not exists(worker), "the worker has ended")
    if todo == "orphan":
        eventually(lambda: not exists(int(answer)), "what it has started has ended")


@pytest.mark.usefixtures("same_worker")
def test_writing_into_the_model_directory_harms_no_other_registration(zoo, unruly):
    for name in ("vandal", "before"):
        zoo.register("unruly.mar", model_name=name)
    assert unruly("write rubbish", "vandal").text == "written"
    zoo.register("unruly.mar", model_name="after")
    for name in ("unruly", "before", "after"):
        assert unruly("read", name).text == "as packed"
    # A fresh worker reads the handler's source again.
    assert unruly("leave 1", "before").status == 500
    assert unruly("well", "before").text == "well"
    for name in ("vandal", "before", "after"):
        zoo.drop(name)


IMPOSSIBLE = """
import logging


class Impossible:
    def initialize(self, context):
        logging.info("trying to initialise")
        raise RuntimeError("the weights\\nare gone")

    def handle(self, data, context):
        return data
"""


@pytest.mark.parametrize(
    "source, reason",
    [
        (IMPOSSIBLE, "RuntimeError: the weights"),
        ("import no_such_package\n" + IMPOSSIBLE, "ModuleNotFoundError: No module named 'no_such_package'"),
        ("def broken(:\n", "SyntaxError: invalid syntax"),
        ("import sys\nsys.exit(4)\n", "SystemExit: 4"),
        ("import os\nos._exit(7)\n", "7"),
    ],
    ids=["initialize", "dependency", "syntax", "sys.exit", "os._exit"],
)
def test_a_model_that_cannot_be_loaded_says_why(zoo, source, reason):
    zoo.pack("impossible", {"handler.py": source}, "--force")
    reply = zoo.manage("POST", "/models?url=impossible.mar&initial_workers=1")
    assert reply.status == 500
    message = reply.json()["message"]
    assert message.startswith("Failed to start workers for model impossible version: 1.0")
    assert zoo.manage("GET", "/models/impossible").status == 404
    assert zoo.manage("POST", "/models?url=impossible.mar").status == 200
    assert zoo.manage("PUT", "/models/impossible?min_worker=1").status == 202
    worker = eventually(
        lambda: next((w for w in zoo.describe("impossible")["workers"] if "lastFailure" in w), None),
        "describe says why the worker failed",
    )
    assert worker["status"] == "UNLOADING"
    assert reason in worker["lastFailure"]
    if source is IMPOSSIBLE:
        assert "in initialize" in worker["lastFailure"]
        zoo.logged("trying to initialise", out=True)
        zoo.logged("are gone")
    zoo.drop("impossible")
