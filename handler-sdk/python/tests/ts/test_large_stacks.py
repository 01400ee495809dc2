"""Integrations with large stacks: they can be imported, read their configuration, and say what is missing."""

import asyncio
import json
import sys
import types

import pytest

pytest.importorskip("torchvision")

from zoo_handler.context import Context, RequestProcessor
from zoo_handler.errors import PredictionException


def context(tmp_path, config):
    made = Context("llm", str(tmp_path), {"model": {}}, 1, None, "0.12.0", model_yaml_config=config)
    made.request_processor = [RequestProcessor({})]
    made.request_ids = {0: "r0"}
    return made


def missing(monkeypatch, *names):
    for name in names:
        monkeypatch.setitem(sys.modules, name, None)


VLLM = {"handler": {"model_path": "org/model", "vllm_engine_config": {"max_num_seqs": 3}}}


@pytest.mark.parametrize(
    ("module", "name", "package", "config"),
    [
        ("vllm_handler", "VLLMHandler", "vllm", VLLM),
        ("trt_llm_handler", "TRTLLMHandler", "tensorrt_llm", {"handler": {"model_path": "x"}}),
        (
            "dali_image_classifier",
            "DALIImageClassifier",
            "nvidia.dali",
            {"dali": {"device_id": 0, "batch_size": 1, "num_threads": 1, "pipeline_file": "p.dali"}},
        ),
    ],
)
def test_what_is_missing_is_named(tmp_path, monkeypatch, module, name, package, config):
    missing(monkeypatch, package)
    (tmp_path / "p.dali").write_bytes(b"")
    handler = getattr(__import__("ts.torch_handler." + module, fromlist=[name]), name)()
    with pytest.raises(
        RuntimeError, match="model llm: needs .*{}".format(package.replace("nvidia.dali", "nvidia-dali"))
    ):
        handler.initialize(context(tmp_path, config))
    assert not handler.initialized


@pytest.mark.parametrize(
    ("module", "name", "config", "problem"),
    [
        ("vllm_handler", "VLLMHandler", {}, "handler.model_path"),
        ("trt_llm_handler", "TRTLLMHandler", {"handler": {}}, "handler.model_path"),
        ("dali_image_classifier", "DALIImageClassifier", {}, "a mapping `dali`"),
        (
            "dali_image_classifier",
            "DALIImageClassifier",
            {"dali": {"device_id": 0}},
            "lacks batch_size, num_threads",
        ),
        (
            "dali_image_classifier",
            "DALIImageClassifier",
            {"dali": {"device_id": 0, "batch_size": 1, "num_threads": 1, "pipeline_file": "none"}},
            "none, which is missing",
        ),
    ],
)
def test_wrong_configurations(tmp_path, module, name, config, problem):
    handler = getattr(__import__("ts.torch_handler." + module, fromlist=[name]), name)()
    with pytest.raises(ValueError, match=problem):
        handler.initialize(context(tmp_path, config))


def test_deepspeed(tmp_path, monkeypatch):
    from ts.handler_utils.distributed.deepspeed import get_ds_engine
    from ts.torch_handler.distributed.base_deepspeed_handler import BaseDeepSpeedHandler

    ctx = context(tmp_path, {"deepspeed": {"config": "ds.json", "checkpoint": "c.json"}})
    for name in ("ds.json", "c.json"):
        with pytest.raises(ValueError, match="{}, which is missing".format(name)):
            get_ds_engine("model", ctx)
        (tmp_path / name).write_text("{}")
    missing(monkeypatch, "deepspeed")
    with pytest.raises(RuntimeError, match="needs the Python package deepspeed"):
        get_ds_engine("model", ctx)
    calls = []
    stand_in = types.ModuleType("deepspeed")
    stand_in.init_inference = lambda model, **options: calls.append((model, options)) or "engine"
    monkeypatch.setitem(sys.modules, "deepspeed", stand_in)
    assert get_ds_engine("model", ctx) == "engine"
    assert calls == [("model", {"config": str(tmp_path / "ds.json"), "checkpoint": str(tmp_path / "c.json")})]

    monkeypatch.delenv("LOCAL_RANK", raising=False)
    with pytest.raises(RuntimeError, match="runs under torchrun"):
        BaseDeepSpeedHandler().initialize(ctx)
    monkeypatch.setenv("LOCAL_RANK", "2")
    handler = BaseDeepSpeedHandler()
    handler.initialize(ctx)
    assert (handler.local_rank, handler.device) == (2, 2)
    with pytest.raises(ValueError, match="a mapping `deepspeed`"):
        get_ds_engine("model", context(tmp_path, {}))
    with pytest.raises(ValueError, match="deepspeed.config"):
        get_ds_engine("model", context(tmp_path, {"deepspeed": {}}))


def test_pippy(tmp_path, monkeypatch):
    from ts.handler_utils.distributed.pt_pippy import (
        get_pipeline_driver,
        initialize_rpc_workers,
        pippy_settings,
    )
    from ts.torch_handler.distributed.base_pippy_handler import BasePippyHandler

    ctx = context(tmp_path, {"pippy": {"chunks": 4, "input_names": ["x"]}})
    settings = pippy_settings(ctx)
    assert (settings["chunks"], settings["rpc_timeout"], settings["num_worker_threads"]) == (4, 1800, 512)
    missing(monkeypatch, "pippy")
    with pytest.raises(RuntimeError, match="needs the Python package torchpippy"):
        get_pipeline_driver("model", 2, ctx)
    with pytest.raises(ValueError, match="pippy.input_names"):
        get_pipeline_driver("model", 2, context(tmp_path, {"pippy": {}}))
    with pytest.raises(ValueError, match="a mapping `pippy`"):
        initialize_rpc_workers(0, 2, context(tmp_path, {}))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(RuntimeError, match="needs GPUs"):
        initialize_rpc_workers(0, 2, ctx)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    with pytest.raises(RuntimeError, match="LOCAL_RANK and WORLD_SIZE not set"):
        BasePippyHandler().initialize(ctx)


def test_dali_pipeline_without_dali(monkeypatch):
    import importlib

    missing(monkeypatch, "nvidia.dali")
    module = importlib.import_module("ts.handler_utils.built-in.dali_pipeline_generation")
    with pytest.raises(RuntimeError, match="nvidia-dali"):
        module.main(["--save", "x.dali"])


# A stand-in for vLLM: says back the prompt, word by word.


class Engine:
    def __init__(self, arguments):
        self.arguments = arguments
        self.calls = []

    @classmethod
    def from_engine_args(cls, arguments):
        return cls(arguments)

    async def get_tokenizer(self):
        def apply(messages, tokenize, add_generation_prompt):
            return "".join("{role}: {content} ".format(**message) for message in messages) + "assistant:"

        return types.SimpleNamespace(apply_chat_template=apply)

    async def generate(self, prompt, sampling, request_id, lora_request=None):
        self.calls.append((prompt, sampling, request_id, lora_request))
        words = (prompt if isinstance(prompt, str) else "token ids").split()
        for count in range(1, len(words) + 1):
            await asyncio.sleep(0)
            choice = types.SimpleNamespace(
                index=0,
                text=" ".join(words[:count]),
                token_ids=list(range(count)),
                finish_reason="stop" if count == len(words) else None,
            )
            yield types.SimpleNamespace(outputs=[choice], prompt_token_ids=[1, 2])


def sampling_params(**options):
    if options.get("temperature", 1) < 0:
        raise ValueError("temperature must not be negative")
    return options


@pytest.fixture
def vllm(tmp_path, monkeypatch):
    from ts.torch_handler.vllm_handler import VLLMHandler

    module = types.ModuleType("vllm")
    module.AsyncEngineArgs = lambda **options: options
    module.AsyncLLMEngine = Engine
    module.SamplingParams = sampling_params
    lora = types.ModuleType("vllm.lora.request")
    lora.LoRARequest = lambda name, number, path: (name, number, path)
    monkeypatch.setitem(sys.modules, "vllm", module)
    monkeypatch.setitem(sys.modules, "vllm.lora", types.ModuleType("vllm.lora"))
    monkeypatch.setitem(sys.modules, "vllm.lora.request", lora)
    (tmp_path / "adapter").mkdir()
    section = {
        "model_path": "org/model",
        "vllm_engine_config": {"max_num_seqs": 3, "served_model_name": ["llama"]},
        "adapters": {"mine": "adapter"},
    }
    ctx = context(tmp_path, {"handler": section})
    handler = VLLMHandler()
    handler.initialize(ctx)

    def ask(path, body):
        ctx.request_processor = [RequestProcessor({"url_path": path})]

        async def run():
            (answer,) = await handler.handle([{"data": json.dumps(body).encode()}], ctx)
            return answer if isinstance(answer, dict) else [piece async for piece in answer]

        return asyncio.run(run())

    ask.handler = handler
    ask.context = ctx
    return ask


def test_vllm_engine_gets_its_configuration(vllm):
    assert vllm.handler.vllm_engine.arguments == {
        "model": "org/model",
        "max_num_seqs": 3,
        "enable_lora": True,
    }


def test_vllm_models(vllm):
    assert [card["id"] for card in vllm("v1/models", {})["data"]] == ["llama", "mine"]


def test_vllm_completion(vllm):
    answer = vllm(
        "v1/completions", {"model": "llama", "prompt": "say it again", "max_tokens": 9, "temperature": 0.5}
    )
    assert answer["object"] == "text_completion"
    assert answer["choices"] == [
        {"index": 0, "logprobs": None, "finish_reason": "stop", "text": "say it again"}
    ]
    assert answer["usage"] == {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5}
    (call,) = vllm.handler.vllm_engine.calls
    assert call == ("say it again", {"max_tokens": 9, "temperature": 0.5}, "r0", None)


def test_vllm_token_ids_and_adapters(vllm):
    vllm("v1/completions", {"model": "mine", "prompt": [4, 5]})
    prompt, _, _, lora = vllm.handler.vllm_engine.calls[0]
    assert prompt == {"prompt_token_ids": [4, 5]}
    assert lora == ("mine", 1, lora[2])
    assert lora[2].endswith("/adapter")


def test_vllm_chat(vllm):
    answer = vllm(
        "v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}], "max_completion_tokens": 4}
    )
    assert answer["object"] == "chat.completion"
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": "user: hi assistant:"}
    assert vllm.handler.vllm_engine.calls[0][1] == {"max_tokens": 4}


def events(pieces):
    assert all(piece.startswith("data: ") and piece.endswith("\n\n") for piece in pieces)
    assert pieces[-1] == "data: [DONE]\n\n"
    return [json.loads(piece[6:]) for piece in pieces[:-1]]


def test_vllm_streams(vllm):
    request = {"prompt": "say it again", "stream": True, "stream_options": {"include_usage": True}}
    found = events(vllm("v1/completions", request))
    assert "".join(event["choices"][0]["text"] for event in found[:-1]) == "say it again"
    assert [event["choices"][0]["finish_reason"] for event in found[:-1]] == [None, None, "stop"]
    assert found[-1]["usage"]["total_tokens"] == 5
    assert vllm.context.get_response_content_type(0) == "text/event-stream"


def test_vllm_streams_chats(vllm):
    request = {"messages": [{"role": "user", "content": "hi"}], "stream": True}
    found = events(vllm("v1/chat/completions", request))
    assert found[0]["choices"][0]["delta"] == {"role": "assistant", "content": "user:"}
    assert found[1]["choices"][0]["delta"] == {"content": " hi"}


@pytest.mark.parametrize(
    ("path", "request_body", "code"),
    [
        ("v1/embeddings", {}, 404),
        ("v1/completions", {"model": "other", "prompt": "a"}, 404),
        ("v1/completions", {"prompt": 4}, 400),
        ("v1/completions", [], 400),
        ("v1/completions", {"prompt": "a", "temperature": -1}, 400),
        ("v1/chat/completions", {"messages": []}, 400),
    ],
)
def test_vllm_refusals(vllm, path, request_body, code):
    with pytest.raises(PredictionException) as failure:
        vllm(path, request_body)
    assert failure.value.error_code == code


@pytest.fixture
def trt_llm(tmp_path, monkeypatch):
    from ts.torch_handler.trt_llm_handler import TRTLLMHandler

    module = types.ModuleType("tensorrt_llm")
    module.calls = []

    class LLM:
        def __init__(self, **options):
            module.calls.append(options)

        def generate_async(self, prompt, sampling, streaming):
            module.calls.append((sampling, streaming))
            return Engine(None).generate(prompt, sampling, "")

    module.LLM = LLM
    module.SamplingParams = sampling_params
    monkeypatch.setitem(sys.modules, "tensorrt_llm", module)
    section = {"model_path": "org/model", "trt_llm_engine_config": {"dtype": "bfloat16"}}
    ctx = context(tmp_path, {"handler": section})
    handler = TRTLLMHandler()
    handler.initialize(ctx)

    def ask(body):
        async def run():
            (answer,) = await handler.handle([{"body": body}], ctx)
            return answer if isinstance(answer, str) else [piece async for piece in answer]

        return asyncio.run(run())

    ask.calls = module.calls
    return ask


def test_trt_llm(trt_llm):
    assert trt_llm({"prompt": "say it", "max_new_tokens": 3}) == "say it"
    assert trt_llm({"prompt": "say it", "streaming": True}) == ["say", " it"]
    assert trt_llm.calls == [
        {"model": "org/model", "dtype": "bfloat16"},
        ({"max_tokens": 3}, False),
        ({}, True),
    ]
    for wrong in ({"prompt": 3}, {"prompt": "a", "temperature": -1}):
        with pytest.raises(PredictionException) as failure:
            trt_llm(wrong)
        assert failure.value.error_code == 400
