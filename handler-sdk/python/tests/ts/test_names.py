"""Each module and name that users of TorchServe import is here, and modules that need no torch don't import
it.
"""

import importlib
import subprocess
import sys

import pytest

from conftest import SDK

WITHOUT_TORCH = {
    "ts": "__version__",
    "ts.version": "__version__",
    "ts.context": "Context RequestProcessor",
    "ts.service": "Service emit_metrics",
    "ts.async_service": "AsyncService",
    "ts.model_loader": "ModelLoaderFactory ModelLoader TsModelLoader",
    "ts.model_service.model_service": "ModelService SingleNodeService",
    "ts.model_service_worker": "TorchModelServiceWorker",
    "ts.model_server": "start",
    "ts.arg_parser": "ArgParser",
    "ts.launcher": "start stop register_model register_model_with_params",
    "ts.llm_launcher": "main",
    "ts.metrics.caching_metric": "CachingMetric",
    "ts.metrics.dimension": "Dimension",
    "ts.metrics.metric": "Metric",
    "ts.metrics.metric_cache_abstract": "MetricCacheAbstract",
    "ts.metrics.metric_cache_errors": "GeneralMetricsCacheError MetricsCacheIOError MetricsCachePyYamlError "
    "MetricsCacheTypeError MetricsCacheValueError MetricsCacheKeyError",
    "ts.metrics.metric_cache_yaml_impl": "MetricsCacheYamlImpl",
    "ts.metrics.metric_encoder": "MetricEncoder",
    "ts.metrics.metric_type_enum": "MetricTypes",
    "ts.metrics.metrics_store": "MetricsStore",
    "ts.metrics.process_memory_metric": "get_cpu_usage check_process_mem_usage",
    "ts.metrics.system_metrics": "cpu_utilization memory_used memory_available memory_utilization disk_used "
    "disk_utilization disk_available collect_gpu_metrics collect_all",
    "ts.metrics.unit": "Units",
    "ts.protocol.otf_message_handler": "retrieve_msg create_predict_response create_load_model_response "
    "encode_response_headers send_intermediate_predict_response",
    "ts.utils.util": "PT2Backend CLEANUP_REGEX list_classes_from_module check_valid_pt2_backend "
    "load_label_mapping map_class_to_label get_yaml_config PredictionException deprecated",
    "ts.utils.timeit_decorator": "timeit",
    "ts.utils.hf_utils": "download_model",
    "ts.utils.setup_model_venv": "setup_model_venv",
    "ts.handler_utils.utils": "import_class send_intermediate_predict_response",
    "ts.handler_utils.timer": "timed",
    "ts.handler_utils.micro_batching": "MicroBatching",
    "ts.handler_utils.hf_batch_streamer": "TextIteratorStreamerBatch",
    "ts.handler_utils.text_utils": "get_tokenizer ngrams_iterator",
    "ts.handler_utils.distributed.deepspeed": "get_ds_engine",
    "ts.handler_utils.distributed.pt_pippy": "initialize_rpc_workers get_pipeline_driver",
    "ts.handler_utils.preprocess.dali": "load_pipeline",
    "ts.handler_utils.built-in.dali_pipeline_generation": "make_pipeline",
    "ts.torch_handler.contractions": "CONTRACTION_MAP",
    "ts.torch_handler.request_envelope.base": "BaseEnvelope",
    "ts.torch_handler.request_envelope.body": "BodyEnvelope",
    "ts.torch_handler.request_envelope.json": "JSONEnvelope",
    "ts.torch_handler.request_envelope.kserve": "KServeEnvelope",
    "ts.torch_handler.request_envelope.kservev2": "KServev2Envelope",
}

WITH_TORCH = {
    "ts.torch_handler.base_handler": "BaseHandler setup_ort_session ONNX_AVAILABLE IPEX_AVAILABLE "
    "PROFILER_AVAILABLE PT2_AVAILABLE PT230_AVAILABLE XLA_AVAILABLE",
    "ts.torch_handler.vision_handler": "VisionHandler",
    "ts.torch_handler.image_classifier": "ImageClassifier",
    "ts.torch_handler.image_segmenter": "ImageSegmenter",
    "ts.torch_handler.object_detector": "ObjectDetector",
    "ts.torch_handler.text_handler": "TextHandler",
    "ts.torch_handler.text_classifier": "TextClassifier",
    "ts.torch_handler.densenet_handler": "DenseNetHandler handle",
    "ts.torch_handler.dali_handler": "DALIHandler",
    "ts.torch_handler.dali_image_classifier": "DALIImageClassifier",
    "ts.torch_handler.distributed.base_pippy_handler": "BasePippyHandler",
    "ts.torch_handler.distributed.base_deepspeed_handler": "BaseDeepSpeedHandler",
    "ts.torch_handler.vllm_handler": "VLLMHandler",
    "ts.torch_handler.trt_llm_handler": "TRTLLMHandler",
}

MEMBERS = {
    ("ts.context", "Context"): "model_name manifest model_yaml_config system_properties metrics request_ids "
    "request_processor stopping_criteria cl_socket header_key_sequence_id header_key_sequence_start "
    "header_key_sequence_end get_request_id get_request_header get_all_request_header "
    "set_response_content_type get_response_content_type get_response_status set_response_status "
    "set_all_response_status get_response_headers set_response_header get_sequence_id",
    ("ts.context", "RequestProcessor"): "get_request_property get_request_properties report_status "
    "get_response_status_code get_response_status_phrase add_response_property get_response_headers "
    "get_response_header",
    ("ts.service", "Service"): "context predict set_cl_socket retrieve_data_for_inference",
    ("ts.metrics.metric_cache_yaml_impl", "MetricsCacheYamlImpl"): "add_metric add_counter add_time add_size "
    "add_percent add_error get_metric add_metric_to_cache set_request_ids request_ids model_name cache "
    "cache_keys initialize_cache",
    ("ts.metrics.caching_metric", "CachingMetric"): "add_or_update update",
    (
        "ts.metrics.metrics_store",
        "MetricsStore",
    ): "add_counter add_time add_size add_percent add_error add_metric",
    (
        "ts.handler_utils.micro_batching",
        "MicroBatching",
    ): "handle parallelism get_micro_batch_idx shutdown __call__",
    (
        "ts.torch_handler.base_handler",
        "BaseHandler",
    ): "model mapping device initialized context model_pt_path "
    "manifest map_location explain target profiler_args initialize preprocess inference postprocess handle "
    "explain_handle describe_handle _is_explain _is_describe get_device _infer_with_profiler "
    "_load_torchscript_model _load_pickled_model _load_torch_export_aot_compile "
    "_use_torch_export_aot_compile",
    ("ts.torch_handler.vision_handler", "VisionHandler"): "get_insights ig",
    (
        "ts.torch_handler.image_classifier",
        "ImageClassifier",
    ): "topk set_max_result_classes get_max_result_classes",
    ("ts.torch_handler.object_detector", "ObjectDetector"): "threshold",
    ("ts.torch_handler.text_handler", "TextHandler"): "_expand_contractions _remove_accented_characters "
    "_remove_html_tags _remove_punctuation _remove_puncutation _tokenize get_word_token "
    "summarize_attributions get_source_vocab_path",
    ("ts.torch_handler.text_classifier", "TextClassifier"): "ngrams",
}


@pytest.mark.parametrize("module", WITHOUT_TORCH)
def test_names_that_need_no_torch(module):
    _has_names(module, WITHOUT_TORCH[module])


@pytest.mark.parametrize("module", WITH_TORCH)
def test_names_of_handlers(module):
    pytest.importorskip("torchvision")
    _has_names(module, WITH_TORCH[module])


def _has_names(module, names):
    missing = [name for name in names.split() if not hasattr(importlib.import_module(module), name)]
    assert not missing


@pytest.mark.parametrize(("module", "name"), MEMBERS)
def test_members(module, name, archive, load):
    if module.startswith("ts.torch_handler"):
        pytest.importorskip("torchvision")
    kind = getattr(importlib.import_module(module), name)
    made = _instance(kind)
    missing = [member for member in MEMBERS[module, name].split() if member not in dir(made)]
    assert not missing


def _instance(kind):
    if kind.__name__ == "Context":
        return kind("m", "/m", {"model": {}}, 1, None, "0.12.0")
    arguments = {
        "RequestProcessor": [{}],
        "CachingMetric": ["a", "ms"],
        "MetricsStore": [{}, "m"],
        "MicroBatching": [object()],
        "MetricsCacheYamlImpl": [None],
        "Service": ["m", "/m", {}, len, None, 1],
    }
    return kind(*arguments.get(kind.__name__, []))


def test_importing_loads_neither_torch_nor_much_else():
    program = (
        "import importlib, sys\n"
        "for name in {!r}: importlib.import_module(name)\n"
        "large = {{'torch', 'numpy', 'yaml', 'PIL', 'requests', 'captum', 'onnxruntime'}}\n"
        "print(sorted(large & set(sys.modules)))"
    ).format(list(WITHOUT_TORCH))
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=SDK, capture_output=True, text=True, check=True
    )
    assert result.stdout == "[]\n"


def test_base_handler_imports_torch_only():
    pytest.importorskip("torch")
    program = (
        "import sys, torch\nbefore = set(sys.modules)\nimport ts.torch_handler.base_handler\n"
        "new = {name.split('.')[0] for name in set(sys.modules) - before}\n"
        "print(sorted(new & {'PIL', 'captum', 'onnxruntime', 'torchvision', 'yaml', 'psutil', 'torch_xla'}))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=SDK, capture_output=True, text=True, check=True
    )
    assert result.stdout == "[]\n"


def test_version_file_agrees():
    import ts

    with open(SDK + "/ts/version.txt", encoding="ascii") as file:
        assert file.read().strip() == ts.__version__


def test_sources_are_python_3_8():
    import ast
    import pathlib

    for path in sorted(pathlib.Path(SDK, "ts").rglob("*.py")):
        ast.parse(path.read_text(encoding="utf-8"), str(path), feature_version=(3, 8))
