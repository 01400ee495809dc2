"""`ts.llm_launcher`: what it writes, and that it cleans up."""

import json
import queue

import pytest

from ts import llm_launcher


def test_model_directory(tmp_path, monkeypatch):
    seen = {}

    class Interrupted(queue.Queue):
        def get(self):
            raise KeyboardInterrupt

    def start(**options):
        seen["options"] = options
        directory = tmp_path / "llama"
        seen["manifest"] = json.loads((directory / "MAR-INF" / "MANIFEST.json").read_text())
        seen["config"] = json.loads((directory / "model-config.yaml").read_text())
        return Interrupted()

    monkeypatch.setattr(llm_launcher, "start", start)
    monkeypatch.setattr(llm_launcher, "stop", lambda: seen.setdefault("stopped", True))
    line = "--model_name llama --model_store {} --model_id org/llama --disable_token_auth --startup_timeout 7"
    line += " --vllm_engine.max_model_len 64 --vllm_engine.tensor_parallel_size 2"
    line += " --vllm_engine.kv_cache_dtype fp8"
    with pytest.raises(SystemExit) as end:
        llm_launcher.main(line.format(tmp_path).split())
    assert end.value.code == 0
    assert seen["options"] == {
        "model_store": str(tmp_path),
        "no_config_snapshots": True,
        "models": "llama",
        "disable_token": True,
    }
    assert seen["manifest"]["model"]["handler"] == "vllm_handler"
    assert (seen["config"]["startupTimeout"], seen["config"]["asyncCommunication"]) == (7, True)
    assert seen["config"]["handler"] == {
        "model_path": "org/llama",
        "vllm_engine_config": {
            "max_num_seqs": 256,
            "max_model_len": 64,
            "tensor_parallel_size": 2,
            "kv_cache_dtype": "fp8",
            "dtype": "bfloat16",
        },
    }
    assert seen["stopped"]
    assert not (tmp_path / "llama").exists()


def test_the_other_engine():
    args = llm_launcher.parser().parse_args(["--engine", "trt_llm"])
    config = llm_launcher.model_config(args, {"max_batch_size": 4})
    assert config["handler"]["trt_llm_engine_config"] == {"max_batch_size": 4, "dtype": "bfloat16"}


@pytest.mark.parametrize("rest", [["--unknown", "1"], ["--vllm_engine.flag"], ["--trt_llm_engine.x", "1"]])
def test_unknown_options(rest):
    with pytest.raises(SystemExit, match="unknown options"):
        llm_launcher.engine_options(rest, "vllm")
