"""`BaseHandler.initialize`: kinds of models, devices, weights, compilation."""

import sys
import types

import pytest

torch = pytest.importorskip("torch")

from ts.torch_handler import base_handler  # noqa: E402
from ts.torch_handler.base_handler import BaseHandler  # noqa: E402

HANDLER = (
    "from ts.torch_handler.base_handler import BaseHandler\n"
    "class H(BaseHandler):\n"
    "    def preprocess(self, data):\n"
    "        return super().preprocess([row.get('body') for row in data])\n"
)
MODEL = (
    "import torch\n"
    "class Net(torch.nn.Module):\n"
    "    def __init__(self):\n"
    "        super().__init__()\n"
    "        self.layer = torch.nn.Linear(2, 3)\n"
    "    def forward(self, x):\n"
    "        return self.layer(x)\n"
)
ROWS = [{"body": [1.0, 2.0]}, {"body": [3.0, -1.0]}]


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 3)

    def forward(self, x):
        return self.layer(x)


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(1)
    return Net().eval()


@pytest.fixture
def expected(net):
    with torch.no_grad():
        return net(torch.tensor([row["body"] for row in ROWS])).tolist()


def close(answers, expected):
    return torch.allclose(torch.tensor(answers), torch.tensor(expected), atol=1e-5)


def saved(value, save=torch.save):
    import io

    out = io.BytesIO()
    save(value, out)
    return out.getvalue()


def test_eager_with_weights(archive, load, net, expected):
    files = {"h.py": HANDLER, "net.py": MODEL, "w.pth": saved(net.state_dict())}
    model = load(archive(files, modelFile="net.py", serializedFile="w.pth"), "h.py", batch_size=2)
    assert close(model.ask(*ROWS), expected)


def test_eager_without_weights(archive, load):
    model = load(archive({"h.py": HANDLER, "net.py": MODEL}, modelFile="net.py"), "h.py", batch_size=2)
    assert [len(answer) for answer in model.ask(*ROWS)] == [3, 3]


def test_torchscript(archive, load, net, expected):
    files = {"h.py": HANDLER, "w.pt": saved(torch.jit.script(net), torch.jit.save)}
    model = load(archive(files, serializedFile="w.pt"), "h.py", batch_size=2)
    assert close(model.ask(*ROWS), expected)


def onnx_of(net, tmp_path, outputs=("y",)):
    pytest.importorskip("onnxscript")
    path = tmp_path / "w.onnx"
    batch = torch.export.Dim("batch")
    torch.onnx.export(
        net,
        (torch.zeros(2, 2),),
        str(path),
        input_names=["x"],
        output_names=list(outputs),
        dynamic_shapes=({0: batch},),
        external_data=False,
        verbose=False,
    )
    return path.read_bytes()


def test_onnx(archive, load, net, expected, tmp_path):
    pytest.importorskip("onnxruntime")
    files = {"h.py": HANDLER, "w.onnx": onnx_of(net, tmp_path)}
    model = load(archive(files, serializedFile="w.onnx"), "h.py", batch_size=2)
    assert close(model.ask(*ROWS), expected)


def test_onnx_with_a_handler_that_runs_the_session_itself(archive, load, net, expected, tmp_path):
    pytest.importorskip("onnxruntime")
    source = HANDLER + (
        "    def inference(self, data):\n"
        "        return self.model.run(None, {self.model.get_inputs()[0].name: data.numpy()})[0]\n"
    )
    files = {"h.py": source, "w.onnx": onnx_of(net, tmp_path)}
    model = load(archive(files, serializedFile="w.onnx"), "h.py", batch_size=2)
    assert close(model.ask(*ROWS), expected)


def test_onnx_with_several_outputs(net, tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    class Two(Net):
        def forward(self, x):
            y = self.layer(x)
            return y, y.sum(dim=1)

    path = tmp_path / "two.onnx"
    path.write_bytes(onnx_of(Two(), tmp_path, ("y", "sum")))
    handler = BaseHandler()
    handler.model = base_handler.setup_ort_session(str(path), "cpu")
    outputs = handler.inference(torch.ones(4, 2))
    assert {name: tuple(output.shape) for name, output in outputs.items()} == {"y": (4, 3), "sum": (4,)}


def test_exported_program(archive, load, net, expected, tmp_path):
    path = tmp_path / "w.pt2"
    batch = torch.export.Dim("batch", min=1)
    torch.export.save(torch.export.export(net, (torch.zeros(2, 2),), dynamic_shapes=({0: batch},)), str(path))
    files = {"h.py": HANDLER, "w.pt2": path.read_bytes()}
    model = load(archive(files, serializedFile="w.pt2"), "h.py", batch_size=2)
    assert close(model.ask(*ROWS), expected)


@pytest.mark.parametrize(("name", "function"), [("w.so", "aot_load"), ("w.pt2", "aoti_load_package")])
def test_aot_compiled(archive, load, monkeypatch, name, function):
    # Compiling takes a compiler and most of a minute; that the right loader gets the right file is what is
    # ours.
    home = torch._export if function == "aot_load" else torch._inductor
    loaded = []

    def stand_in(*args):
        loaded.append(args)
        return lambda x: x * 2

    monkeypatch.setattr(home, function, stand_in, raising=False)
    config = {"pt2": {"export": {"aot_compile": True}}}
    directory = archive({"h.py": HANDLER, name: b"\x7fELF"}, config, serializedFile=name)
    model = load(directory, "h.py", batch_size=2)
    assert model.ask(*ROWS) == [[2.0, 4.0], [6.0, -2.0]]
    assert loaded == [(str(directory / name), "cpu")[: len(loaded[0])]]


@pytest.mark.parametrize(
    ("files", "model", "problem"),
    [
        ({}, {}, "neither weights nor a model file"),
        (
            {"w.pth": b""},
            {"serializedFile": "w.pth"},
            "No model weights could be loaded: w.pth is weights of an eager",
        ),
        ({"w.so": b""}, {"serializedFile": "w.so"}, "w.so needs `pt2: {export: {aot_compile: true}}`"),
        ({"w.xyz": b""}, {"serializedFile": "w.xyz"}, "known kinds are .pt, .onnx, .so and .pt2"),
        ({}, {"modelFile": "net.py"}, "Missing the model.py file: net.py"),
        (
            {"net.py": "import torch\n"},
            {"modelFile": "net.py"},
            "Expected only one class as model definition",
        ),
        ({"w.pt": saved({"a": torch.ones(1)})}, {"serializedFile": "w.pt"}, "is no TorchScript model"),
        ({"w.pt": b"no zip"}, {"serializedFile": "w.pt"}, "is no TorchScript model"),
    ],
)
def test_archives_that_cannot_be_loaded(archive, load, files, model, problem):
    with pytest.raises((RuntimeError, ValueError)) as failure:
        load(archive(dict(files, **{"h.py": HANDLER}), **model), "h.py")
    assert problem in str(failure.value)


def test_onnx_without_its_runtime(archive, load, monkeypatch):
    monkeypatch.setattr(base_handler, "ONNX_AVAILABLE", False)
    with pytest.raises(RuntimeError, match="w.onnx needs the Python package onnxruntime"):
        load(archive({"h.py": HANDLER, "w.onnx": b""}, serializedFile="w.onnx"), "h.py")


# Weights that could run code.


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


def test_pickles_are_not_run(archive, load, tmp_path):
    mark = tmp_path / "ran"
    files = {"h.py": HANDLER, "net.py": MODEL, "w.pth": saved({"layer.weight": Evil(str(mark))})}
    model = {"modelFile": "net.py", "serializedFile": "w.pth"}
    with pytest.raises(RuntimeError) as failure:
        load(archive(files, **model), "h.py")
    assert "handler: {allow_pickle: true}" in str(failure.value)
    assert "ZOO_ALLOW_PICKLE=true" in str(failure.value)
    assert "w.pth" in str(failure.value)
    assert not mark.exists()


def whole_model(net):
    # Saved as a module's own class would be, so that the file can be read where this test isn't imported.
    return saved(torch.nn.Sequential(torch.nn.Linear(2, 3)))


SEQUENTIAL = MODEL.replace(
    "self.layer = torch.nn.Linear(2, 3)", "self.add_module('0', torch.nn.Linear(2, 3))"
).replace("self.layer(x)", "getattr(self, '0')(x)")


@pytest.mark.parametrize(
    ("config", "variable", "allowed"),
    [
        (None, None, False),
        ({"handler": {"allow_pickle": True}}, None, True),
        ({"handler": {"allow_pickle": "yes"}}, None, False),
        (None, "true", True),
        ({"handler": {"profile": False}}, "true", True),
        ({"handler": {"allow_pickle": False}}, "true", False),
    ],
)
def test_the_switch_for_pickles(archive, load, net, monkeypatch, config, variable, allowed):
    if variable:
        monkeypatch.setenv("ZOO_ALLOW_PICKLE", variable)
    files = {"h.py": HANDLER, "net.py": SEQUENTIAL, "w.pth": whole_model(net)}
    directory = archive(files, config, modelFile="net.py", serializedFile="w.pth")
    if allowed:
        assert len(load(directory, "h.py", batch_size=2).ask(*ROWS)) == 2
    else:
        with pytest.raises(RuntimeError, match="holds more than tensors"):
            load(directory, "h.py")


# Devices.


@pytest.mark.parametrize(
    ("gpu_id", "cuda", "xpu", "mps", "device", "location"),
    [
        (None, True, True, True, "cpu", "cpu"),
        (1, True, True, True, "cuda:1", "cuda"),
        (0, False, True, True, "xpu:0", "xpu"),
        (0, False, False, True, "mps", "mps"),
        (2, False, False, False, "cpu", "cpu"),
        (3, True, False, False, "cuda:3", "cuda"),
    ],
)
def test_devices(monkeypatch, gpu_id, cuda, xpu, mps, device, location):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.xpu, "is_available", lambda: xpu)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    monkeypatch.setenv("TS_IPEX_GPU_ENABLE", "true")
    handler = BaseHandler()
    handler._choose_device(gpu_id)
    assert (str(handler.device), handler.map_location) == (device, location)
    assert handler.get_device() is handler.device


def test_xpu_must_be_asked_for(monkeypatch):
    monkeypatch.setattr(torch.xpu, "is_available", lambda: True)
    monkeypatch.delenv("TS_IPEX_GPU_ENABLE", raising=False)
    handler = BaseHandler()
    handler._choose_device(0)
    assert str(handler.device) == "cpu"


def test_xla(monkeypatch):
    core = types.ModuleType("torch_xla.core.xla_model")
    core.xla_device = lambda: "xla:0"
    for name in ("torch_xla", "torch_xla.core"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "torch_xla.core.xla_model", core)
    monkeypatch.setattr(base_handler, "XLA_AVAILABLE", True)
    handler = BaseHandler()
    handler._choose_device(None)
    assert (handler.device, handler.map_location) == ("xla:0", None)


# Compilation.


@pytest.fixture
def compiled(archive, load, net, monkeypatch):
    """Loads with a `pt2` section; gives what torch.compile was called with."""

    def run(pt2, fails=False):
        calls = []

        def compile_model(model, **options):
            calls.append(options)
            if fails:
                raise RuntimeError("no compiler")
            return model

        monkeypatch.setattr(torch, "compile", compile_model)
        files = {"h.py": HANDLER, "net.py": MODEL, "w.pth": saved(net.state_dict())}
        directory = archive(files, {"pt2": pt2}, modelFile="net.py", serializedFile="w.pth")
        assert len(load(directory, "h.py", batch_size=2).ask(*ROWS)) == 2
        return calls

    pytest.importorskip("yaml")
    return run


@pytest.mark.parametrize(
    ("pt2", "calls"),
    [
        ({"compile": {"enable": True}}, [{}]),
        ({"compile": {"enable": True, "backend": "inductor", "mode": "max-autotune"}},
         [{"backend": "inductor", "mode": "max-autotune"}]),
        ({"compile": {"enable": False, "backend": "inductor"}}, []),
        ({"compile": {"enable": True, "backend": "magic"}}, []),
        ({"compile": {"backend": "inductor"}}, []),
        ({"export": {"aot_compile": True}}, []),
        ("inductor", [{"backend": "inductor"}]),
        ({"backend": "eager", "mode": "default"}, [{"backend": "eager", "mode": "default"}]),
    ],
)  # fmt: skip
def test_compile_options(compiled, pt2, calls):
    assert compiled(pt2) == calls


def test_old_forms_warn(compiled, caplog):
    compiled("inductor")
    assert "deprecated" in caplog.text


def test_a_model_that_cannot_be_compiled_is_served(compiled, caplog):
    assert compiled({"compile": {"enable": True, "backend": "inductor"}}, fails=True)
    assert "no compiler" in caplog.text


def test_wrong_pt2(archive, load):
    pytest.importorskip("yaml")
    with pytest.raises(ValueError, match="pt2 must be a mapping"):
        load(archive({"h.py": HANDLER, "net.py": MODEL}, {"pt2": 4}, modelFile="net.py"), "h.py")


def test_really_compiled(archive, load, net, expected):
    pytest.importorskip("yaml")
    files = {"h.py": HANDLER, "net.py": MODEL, "w.pth": saved(net.state_dict())}
    config = {"pt2": {"compile": {"enable": True, "backend": "eager"}}}
    model = load(archive(files, config, modelFile="net.py", serializedFile="w.pth"), "h.py", batch_size=2)
    assert close(model.ask(*ROWS), expected)


def test_ipex_that_is_missing_is_said(archive, load, monkeypatch, caplog):
    monkeypatch.setenv("TS_IPEX_ENABLE", "true")
    load(archive({"h.py": HANDLER, "net.py": MODEL}, modelFile="net.py"), "h.py")
    assert "intel_extension_for_pytorch isn't installed" in caplog.text


def test_ipex(archive, load, monkeypatch):
    ipex = types.ModuleType("intel_extension_for_pytorch")
    optimized = []
    ipex.optimize = lambda model: optimized.append(model) or model
    monkeypatch.setitem(sys.modules, "intel_extension_for_pytorch", ipex)
    monkeypatch.setenv("TS_IPEX_ENABLE", "true")
    monkeypatch.setattr(base_handler, "IPEX_AVAILABLE", True)
    load(archive({"h.py": HANDLER, "net.py": MODEL}, modelFile="net.py"), "h.py")
    assert len(optimized) == 1


# Calls.


def test_describe(archive, load):
    source = HANDLER + "    def describe_handle(self):\n        return {'labels': 3}\n"
    model = load(archive({"h.py": source, "net.py": MODEL}, modelFile="net.py"), "h.py")
    assert model.ask({}, headers={"describe": "True"}) == [{"labels": 3}]


def test_describe_by_default_is_null(archive, load):
    model = load(archive({"h.py": HANDLER, "net.py": MODEL}, modelFile="net.py"), "h.py")
    assert model.ask({}, headers={"describe": "True"}) == [None]


@pytest.mark.parametrize(
    ("row", "target"),
    [
        ({"body": 1}, 0),
        ({"body": 1, "target": 2}, 2),
        ({"body": 1, "target": bytearray(b"2")}, 2),
        ({"body": 1, "target": "2"}, 2),
        ({"body": 1, "target": [1, 2]}, [1, 2]),
    ],
)
def test_explanations_get_data_and_target(archive, load, row, target):
    source = HANDLER + (
        "    def preprocess(self, data):\n        return 'prepared'\n"
        "    def get_insights(self, tensor, inputs, target):\n        return [[tensor, inputs, target]]\n"
    )
    model = load(archive({"h.py": source, "net.py": MODEL}, modelFile="net.py"), "h.py")
    assert model.explain(row) == [["prepared", 1, target]]


def test_profiled_stages(archive, load):
    pytest.importorskip("yaml")
    config = {"handler": {"profile": True}}
    model = load(
        archive({"h.py": HANDLER, "net.py": MODEL}, config, modelFile="net.py"), "h.py", batch_size=2
    )
    model.ask(*ROWS)
    names = [record[0] for record in model.context.metrics.take()]
    assert names == [
        "ts_handler_preprocess",
        "ts_handler_inference",
        "ts_handler_postprocess",
        "HandlerTime",
        "PredictionTime",
    ]


def test_torch_profiler(archive, load, monkeypatch, tmp_path, caplog):
    import tempfile

    caplog.set_level("INFO")
    monkeypatch.setenv("ENABLE_TORCH_PROFILER", "true")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    model = load(archive({"h.py": HANDLER, "net.py": MODEL}, modelFile="net.py"), "h.py", batch_size=2)
    assert len(model.ask(*ROWS)) == 2
    (directory,) = tmp_path.glob("pytorch_profiler-*/m")
    assert list(directory.iterdir())
    assert directory.stat().st_mode & 0o777 == 0o700
    assert "Self CPU" in caplog.text


def test_tensors_are_answered_as_torch_saves_them(archive, load):
    import io

    source = HANDLER + "    def postprocess(self, data):\n        return list(data)\n"
    model = load(archive({"h.py": source, "net.py": MODEL}, modelFile="net.py"), "h.py", batch_size=2)
    _, _, answers = model.predict(*ROWS)
    assert torch.load(io.BytesIO(answers[0].body)).shape == (3,)


def test_micro_batching(archive, load, net, expected):
    pytest.importorskip("yaml")
    source = (
        "from ts.handler_utils.micro_batching import MicroBatching\n" + HANDLER + "    def __init__(self):\n"
        "        super().__init__()\n        self.handle = MicroBatching(self)\n"
        "    def initialize(self, context):\n        super().initialize(context)\n"
        "        config = context.model_yaml_config['micro_batching']\n"
        "        self.handle.micro_batch_size = config['micro_batch_size']\n"
        "        self.handle.parallelism = config['parallelism']\n"
    )
    parallelism = {"preprocess": 1, "inference": 2, "postprocess": 1}
    config = {"micro_batching": {"micro_batch_size": 1, "parallelism": parallelism}}
    files = {"h.py": source, "net.py": MODEL, "w.pth": saved(net.state_dict())}
    model = load(archive(files, config, modelFile="net.py", serializedFile="w.pth"), "h.py", batch_size=8)
    assert close(model.ask(*(ROWS * 4)), expected * 4)
