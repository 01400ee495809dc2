"""The handler that other handlers extend: loads a model of any of the known kinds, and runs
preprocess → inference → postprocess on each batch.

A subclass overrides what differs. Nothing here knows how requests come in or how answers go out.
"""

import importlib
import importlib.util
import logging
import os
import re
import sys
import tempfile
import time
from abc import ABC
from typing import Any, Dict, List, Optional, Tuple

import torch

from ts.handler_utils.timer import timed
from ts.handler_utils.weights import load_weights
from ts.utils.util import check_valid_pt2_backend, list_classes_from_module, load_label_mapping

logger = logging.getLogger(__name__)


def _torch_is_at_least(*wanted: int) -> bool:
    found = tuple(int(number) for number in re.findall(r"\d+", torch.__version__)[:3])
    return found >= wanted


# Whether a library is there is asked without importing it: each would cost every worker time and memory.
PT2_AVAILABLE = _torch_is_at_least(2, 0)
PT230_AVAILABLE = _torch_is_at_least(2, 3)
PROFILER_AVAILABLE = hasattr(torch, "profiler")
ONNX_AVAILABLE = importlib.util.find_spec("onnxruntime") is not None
XLA_AVAILABLE = importlib.util.find_spec("torch_xla") is not None
IPEX_AVAILABLE = (
    os.environ.get("TS_IPEX_ENABLE", "false") == "true"
    and importlib.util.find_spec("intel_extension_for_pytorch") is not None
)


def setup_ort_session(model_pt_path: str, map_location: Optional[str]) -> Any:
    """Makes an ONNX Runtime session, on the GPU if `map_location` is `cuda` and the runtime can."""
    import onnxruntime

    providers = ["CPUExecutionProvider"]
    if map_location == "cuda" and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        providers.insert(0, "CUDAExecutionProvider")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)
    return onnxruntime.InferenceSession(model_pt_path, sess_options=options, providers=providers)


def row_value(row: Any) -> Any:
    """What a request sent: its `data` or `body`, or the row itself if an envelope has taken those off."""
    if not isinstance(row, dict):
        return row
    value = row.get("data")
    return row.get("body") if value is None else value


def require_captum(what: str) -> Any:
    """The module `captum.attr`."""
    try:
        import captum.attr
    except ImportError as cause:
        raise RuntimeError(
            "{} need the Python package captum, which can't be imported in {}: {}".format(
                what, sys.executable, cause
            )
        ) from cause
    return captum.attr


class BaseHandler(ABC):  # noqa: B024 - abstract for subclasses that declare abstract methods
    """Loads the model of an archive and answers with what it computes."""

    def __init__(self) -> None:
        self.model: Any = None
        self.mapping: Optional[Dict[str, str]] = None
        self.device: Any = None
        self.initialized = False
        self.context: Any = None
        self.model_pt_path: Optional[str] = None
        self.manifest: Any = None
        self.map_location: Optional[str] = None
        self.explain = False
        self.target = 0
        self.profiler_args: Dict[str, Any] = {}

    # Loading.

    def initialize(self, context: Any) -> None:
        """Chooses the device, loads the model and the labels."""
        properties = context.system_properties
        model_dir = properties.get("model_dir")
        self.context = context
        self.manifest = context.manifest
        self.model_yaml_config = context.model_yaml_config or {}
        self._choose_device(properties.get("gpu_id"))

        model_info = self.manifest["model"]
        self.model_pt_path = None
        if model_info.get("serializedFile"):
            self.model_pt_path = os.path.join(model_dir, model_info["serializedFile"])
        self._load_model(model_dir, model_info.get("modelFile") or "")
        self._optimize_model()

        self.mapping = load_label_mapping(os.path.join(model_dir, "index_to_name.json"))
        self.initialized = True

    def _choose_device(self, gpu_id: Optional[int]) -> None:
        if torch.cuda.is_available() and gpu_id is not None:
            self.map_location = "cuda"
            self.device = torch.device("cuda:{}".format(gpu_id))
        elif _wants_xpu() and gpu_id is not None:
            self.map_location = "xpu"
            self.device = torch.device("xpu:{}".format(gpu_id))
        elif _has_mps() and gpu_id is not None:
            self.map_location = "mps"
            self.device = torch.device("mps")
        elif XLA_AVAILABLE:
            import torch_xla.core.xla_model as xla_model

            self.map_location = None
            self.device = xla_model.xla_device()
        else:
            self.map_location = "cpu"
            self.device = torch.device("cpu")

    def _load_model(self, model_dir: str, model_file: str) -> None:
        path = self.model_pt_path
        if model_file:
            logger.debug("loading an eager model from %s", model_file)
            self.model = self._load_pickled_model(model_dir, model_file, path)
            self.model.to(self.device)
            self.model.eval()
        elif path is None:
            raise RuntimeError(
                "No model weights could be loaded: the archive has neither weights nor a model file"
            )
        elif path.endswith(".pt"):
            self.model = self._load_torchscript_model(path)
            self.model.eval()
        elif path.endswith(".onnx") and ONNX_AVAILABLE:
            self.model = setup_ort_session(path, self.map_location)
            logger.info("%s is served by ONNX Runtime", os.path.basename(path))
        elif path.endswith(".so") and self._use_torch_export_aot_compile():
            self.model = self._load_torch_export_aot_compile(path)
        elif path.endswith(".pt2") and PT230_AVAILABLE:
            self.model = self._load_exported_program(path)
        else:
            raise RuntimeError("No model weights could be loaded: {}".format(_why_not_loadable(path)))

    def _load_pickled_model(self, model_dir: str, model_file: str, model_pt_path: Optional[str]) -> Any:
        """Makes an instance of the one class in the model file, and gives it the weights if there are any."""
        if not os.path.isfile(os.path.join(model_dir, model_file)):
            raise RuntimeError("Missing the model.py file: {} is not in the archive".format(model_file))
        if model_dir not in sys.path:
            sys.path.insert(0, model_dir)
        module = importlib.import_module(os.path.splitext(model_file)[0].replace(os.sep, "."))
        classes = list_classes_from_module(module)
        if len(classes) != 1:
            raise ValueError("Expected only one class as model definition. {}".format(classes))
        model = classes[0]()
        if model_pt_path:
            state = load_weights(
                model_pt_path, None if XLA_AVAILABLE else self.device, self.model_yaml_config
            )
            if isinstance(state, torch.nn.Module):  # saved whole, which only a trusted archive may be
                state = state.state_dict()
            model.load_state_dict(state)
        return model

    def _load_torchscript_model(self, model_pt_path: str) -> Any:
        try:
            return torch.jit.load(model_pt_path, map_location=self.device)
        except RuntimeError as cause:
            if "constants.pkl" not in str(cause) and "PytorchStreamReader" not in str(cause):
                raise
            raise RuntimeError(
                "{}: is no TorchScript model; weights of an eager model need the archive's model file "
                "(--model-file) beside them".format(model_pt_path)
            ) from cause

    def _use_torch_export_aot_compile(self) -> bool:
        pt2 = self.model_yaml_config.get("pt2")
        export = pt2.get("export") if isinstance(pt2, dict) else None
        return PT230_AVAILABLE and isinstance(export, dict) and export.get("aot_compile") is True

    def _load_torch_export_aot_compile(self, model_so_path: str) -> Any:
        return torch._export.aot_load(model_so_path, self.map_location)

    def _load_exported_program(self, path: str) -> Any:
        if self._use_torch_export_aot_compile():
            return torch._inductor.aoti_load_package(path)
        return torch.export.load(path).module().to(self.device)

    # Making it fast.

    def _optimize_model(self) -> None:
        pt2 = self.model_yaml_config.get("pt2")
        if pt2 is not None:
            options = _compile_options(pt2)
            if options is not None and PT2_AVAILABLE and isinstance(self.model, torch.nn.Module):
                self._compile(options)
        elif os.environ.get("TS_IPEX_ENABLE", "false") == "true":
            self._optimize_with_ipex()

    def _compile(self, options: Dict[str, Any]) -> None:
        described = (
            ", ".join("{} {}".format(key, value) for key, value in options.items()) or "default options"
        )
        try:
            self.model = torch.compile(self.model, **options)
        except Exception as cause:  # whatever the compiler can't do, the model can do without it
            logger.warning("compiling the model with %s failed, it is served without: %s", described, cause)
        else:
            logger.info("Compiled model with %s", described)

    def _optimize_with_ipex(self) -> None:
        if not IPEX_AVAILABLE:
            logger.warning(
                "ipex_enable is set, but the Python package intel_extension_for_pytorch isn't installed: "
                "the model is served without it"
            )
            return
        import intel_extension_for_pytorch as ipex

        self.model = ipex.optimize(self.model.to(memory_format=torch.channels_last))

    # Answering.

    @timed
    def preprocess(self, data: Any) -> Any:
        """Turns the requests of a batch into the model's input."""
        return torch.as_tensor(data, device=self.device)

    @timed
    def inference(self, data: Any, *args: Any, **kwargs: Any) -> Any:
        """Runs the model on a tensor, without gradients."""
        with torch.inference_mode():
            if _is_onnx_session(self.model):
                return _run_onnx(self.model, (data,) + args, kwargs)
            return self.model(data.to(self.device), *args, **kwargs)

    @timed
    def postprocess(self, data: Any) -> List[Any]:
        """Turns the model's output into a list with one answer for each request."""
        return data.tolist()

    def handle(self, data: List[Any], context: Any) -> Any:
        """Answers one batch: the entry point."""
        started = time.perf_counter()
        self.context = context
        if self._is_describe():
            output = [self.describe_handle()]
        elif os.environ.get("ENABLE_TORCH_PROFILER"):
            output, _ = self._infer_with_profiler(data)
        else:
            prepared = self.preprocess(data)
            if self._is_explain():
                output = self.explain_handle(prepared, data)
            else:
                output = self.postprocess(self.inference(prepared))
        context.metrics.add_time("HandlerTime", round((time.perf_counter() - started) * 1000, 2), None, "ms")
        return output

    def explain_handle(self, data_preprocess: Any, raw_data: List[Any]) -> Any:
        """Answers a request for an explanation, by `get_insights`, which the subclass defines."""
        logger.info("Calculating Explanations")
        row = raw_data[0]
        inputs = row_value(row)
        target = _target(row.get("target")) if isinstance(row, dict) else 0
        insights = getattr(self, "get_insights", None)
        if insights is None:
            raise NotImplementedError("{} can't explain: it has no get_insights".format(type(self).__name__))
        return insights(data_preprocess, inputs, target)

    def describe_handle(self) -> Any:
        """What the handler says of itself when it is asked for a customized description."""
        logger.info("Collect customized metadata")
        return None

    def _is_explain(self) -> bool:
        self.explain = self._first_header_is_true("explain")
        return self.explain

    def _is_describe(self) -> bool:
        return self._first_header_is_true("describe")

    def _first_header_is_true(self, name: str) -> bool:
        return self.context is not None and self.context.get_request_header(0, name) == "True"

    def get_device(self) -> Any:
        """The device that the model is on."""
        return self.device

    # Profiling.

    def _infer_with_profiler(self, data: List[Any]) -> Tuple[Any, Any]:
        """Answers a batch under torch's profiler: its table goes to the log, its trace to a file."""
        if not PROFILER_AVAILABLE:
            raise RuntimeError(
                "ENABLE_TORCH_PROFILER is set, but torch {} has no torch.profiler".format(torch.__version__)
            )
        from torch.profiler import ProfilerActivity, profile, record_function

        arguments = dict(self.profiler_args)
        if not arguments:
            on_gpu = [ProfilerActivity.CUDA] if torch.cuda.is_available() else []
            arguments = {"activities": [ProfilerActivity.CPU] + on_gpu, "record_shapes": True}
        if "on_trace_ready" not in arguments:
            arguments["on_trace_ready"] = torch.profiler.tensorboard_trace_handler(self._trace_directory())
        with profile(**arguments) as profiler:
            with record_function("preprocess"):
                prepared = self.preprocess(data)
            if self._is_explain():
                with record_function("explain"):
                    output = self.explain_handle(prepared, data)
            else:
                with record_function("inference"):
                    computed = self.inference(prepared)
                with record_function("postprocess"):
                    output = self.postprocess(computed)
        logger.info(profiler.key_averages().table(sort_by="cpu_time_total", row_limit=10))
        return output, profiler

    def _trace_directory(self) -> str:
        # Of this user alone: a directory that all users share could be made, or replaced by a link, by
        # another one.
        user = os.getuid() if hasattr(os, "getuid") else "user"
        model = (self.manifest or {}).get("model", {}).get("modelName") or "default"
        directory = os.path.join(tempfile.gettempdir(), "pytorch_profiler-{}".format(user), model)
        os.makedirs(directory, mode=0o700, exist_ok=True)
        logger.info("traces of the profiler are in %s", directory)
        return directory


def _has_mps() -> bool:
    return hasattr(torch.backends, "mps") and torch.backends.mps.is_available()


def _wants_xpu() -> bool:
    wanted = os.environ.get("TS_IPEX_GPU_ENABLE", "false") == "true"
    return wanted and hasattr(torch, "xpu") and torch.xpu.is_available()


def _why_not_loadable(path: str) -> str:
    name = os.path.basename(path)
    if path.endswith(".onnx"):
        return "{} needs the Python package onnxruntime, which isn't installed".format(name)
    if path.endswith(".so"):
        return "{} needs `pt2: {{export: {{aot_compile: true}}}}` in model-config.yaml and torch 2.3".format(
            name
        )
    if path.endswith(".pt2"):
        return "{} needs torch 2.3".format(name)
    if path.endswith((".pth", ".bin")):
        return "{} is weights of an eager model, which need the archive's model file (--model-file)".format(
            name
        )
    return "{}: known kinds are .pt, .onnx, .so and .pt2, and others with a model file".format(name)


def _compile_options(pt2: Any) -> Optional[Dict[str, Any]]:
    """The arguments for `torch.compile`, or None if the model isn't to be compiled."""
    if isinstance(pt2, str):
        logger.warning(
            "`pt2: %s` is deprecated; write `pt2: {compile: {enable: true, backend: %s}}`", pt2, pt2
        )
        options = {"backend": pt2}
    elif not isinstance(pt2, dict):
        raise ValueError(
            "model-config.yaml: pt2 must be a mapping with compile or export, not {!r}".format(pt2)
        )
    elif "export" in pt2:
        return None
    elif "compile" in pt2:
        section = pt2["compile"]
        if not isinstance(section, dict) or section.get("enable") is not True:
            return None
        options = {key: value for key, value in section.items() if key != "enable"}
    else:
        logger.warning(
            "`pt2: {backend: …}` is deprecated; write `pt2: {compile: {enable: true, backend: …}}`"
        )
        options = dict(pt2)
    if "backend" in options and not check_valid_pt2_backend(options["backend"]):
        return None
    return options


def _is_onnx_session(model: Any) -> bool:
    return not callable(model) and hasattr(model, "run") and hasattr(model, "get_inputs")


def _run_onnx(session: Any, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> Any:
    """Runs a session on tensors: one output as a tensor, several as a dict by name."""
    feed = {node.name: value for node, value in zip(session.get_inputs(), args)}
    feed.update(kwargs)
    arrays = {name: torch.as_tensor(value).detach().cpu().numpy() for name, value in feed.items()}
    outputs = [torch.from_numpy(array) for array in session.run(None, arrays)]
    if len(outputs) == 1:
        return outputs[0]
    return {node.name: output for node, output in zip(session.get_outputs(), outputs)}


def _target(value: Any) -> Any:
    """The class to explain: a form field comes as text or bytes."""
    if not value:
        return 0
    if isinstance(value, (bytes, bytearray)):
        value = value.decode("utf-8", "replace")
    if isinstance(value, str) and value.strip().isdigit():
        return int(value)
    return value
