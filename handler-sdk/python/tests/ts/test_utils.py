"""`ts.utils` and those `ts.handler_utils` that need no torch."""

import json
import types

import pytest

from ts.handler_utils import text_utils
from ts.handler_utils.hf_batch_streamer import TextIteratorStreamerBatch
from ts.handler_utils.timer import timed
from ts.handler_utils.utils import import_class, send_intermediate_predict_response
from ts.utils import util
from ts.utils.timeit_decorator import timeit


@pytest.mark.parametrize(
    ("content", "mapping"),
    [
        ({"0": "cat", "1": "dog"}, {"0": "cat", "1": "dog"}),
        ({"0": ["n02123045", "tabby"]}, {"0": "tabby"}),
        ({"object_type_names": ["bg", "person"]}, {"0": "bg", "1": "person"}),
    ],
)
def test_label_mapping(tmp_path, content, mapping):
    path = tmp_path / "index_to_name.json"
    path.write_text(json.dumps(content))
    assert util.load_label_mapping(str(path)) == mapping


@pytest.mark.parametrize("content", [[], {"0": 1}, {"0": {"a": "b"}}, {"0": []}, {"object_type_names": "x"}])
def test_wrong_label_mappings(tmp_path, content):
    path = tmp_path / "index_to_name.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="index_to_name.json"):
        util.load_label_mapping(str(path))


def test_missing_label_mapping_warns(tmp_path, caplog):
    assert util.load_label_mapping(str(tmp_path / "index_to_name.json")) is None
    assert "index_to_name.json is missing" in caplog.text


def test_classes_to_labels():
    probs = [[0.7, 0.3], [0.9, 0.1]]
    assert util.map_class_to_label(probs) == [{"0": 0.7, "1": 0.3}, {"0": 0.9, "1": 0.1}]
    assert util.map_class_to_label(probs, {"0": "a", "1": "b"}, [[1, 0], [0, 1]]) == [
        {"b": 0.7, "a": 0.3},
        {"a": 0.9, "b": 0.1},
    ]
    assert util.map_class_to_label([[1.0]], {"0": "a"}, [[5]]) == [{"5": 1.0}]
    with pytest.raises(ValueError, match="a list for each request"):
        util.map_class_to_label([0.5])


def test_classes_of_a_module():
    module = types.ModuleType("mine")
    exec("class B: pass\nclass A(B): pass\nfrom json import JSONDecoder", module.__dict__)
    assert util.list_classes_from_module(module) == [module.A, module.B]
    assert util.list_classes_from_module(module, module.A) == [module.A]


def test_pt2_backends(caplog):
    assert [member.value for member in util.PT2Backend] == (
        "eager aot_eager inductor nvfuser aot_nvfuser aot_cudagraphs ofi fx2trt onnxrt ipex "
        "torchxla_trace_once "
        "openvino tensorrt hpu_backend"
    ).split()
    assert util.check_valid_pt2_backend("inductor")
    assert not util.check_valid_pt2_backend("magic")
    assert "'magic' is unknown" in caplog.text


def test_prediction_exception():
    failure = util.PredictionException("no", 418)
    assert (failure.message, failure.error_code) == ("no", 418)
    assert util.PredictionException("no").error_code == 500


def test_yaml(tmp_path, monkeypatch):
    pytest.importorskip("yaml")
    path = tmp_path / "a.yaml"
    path.write_text("a: [1, 2]")
    assert util.get_yaml_config(str(path)) == {"a": [1, 2]}
    monkeypatch.setitem(__import__("sys").modules, "yaml", None)
    with pytest.raises(RuntimeError, match="pyyaml"):
        util.get_yaml_config(str(path))


def test_deprecated():
    @util.deprecated(version="1.0", replacement="new")
    def old(value):
        return value + 1

    @util.deprecated(klass=True)
    class Old:
        def __init__(self, value):
            self.value = value

    with pytest.warns(DeprecationWarning, match="old is deprecated and will be removed in 1.0; use new"):
        assert old(1) == 2
    with pytest.warns(DeprecationWarning, match="Old is deprecated$"):
        assert Old(3).value == 3
    assert isinstance(Old, type)


def test_timeit_logs(caplog):
    caplog.set_level("INFO")

    @timeit
    def slow(value):
        return value

    assert slow(4) == 4
    assert caplog.text.count("slow took") == 1


def test_import_class():
    assert import_class("json.JSONDecoder") is json.JSONDecoder
    assert import_class("JSONDecoder", "json") is json.JSONDecoder
    assert import_class("decoder.JSONDecoder", module_prefix="json") is json.JSONDecoder
    with pytest.raises(ValueError, match="say its module too"):
        import_class("JSONDecoder")


def test_intermediate_answers_come_from_rank_0_only(monkeypatch):
    sent = []
    context = types.SimpleNamespace(_streamer=lambda *args: sent.append(args))
    monkeypatch.setenv("LOCAL_RANK", "1")
    send_intermediate_predict_response(["a"], {0: "r"}, "ok", 200, context)
    assert sent == []
    monkeypatch.setenv("LOCAL_RANK", "0")
    send_intermediate_predict_response(["a"], {0: "r"}, "ok", 200, context)
    assert sent == [(["a"], "ok", 200, context)]


class Profiled:
    def __init__(self, config):
        self.metrics = []
        self.context = types.SimpleNamespace(model_yaml_config=config, metrics=self)

    def add_time(self, *args):
        self.metrics.append(args)

    @timed
    def stage(self, value):
        return value * 2


@pytest.mark.parametrize(
    "config", [None, {}, {"handler": {}}, {"handler": {"profile": False}}, {"handler": None}]
)
def test_timed_without_profile(config):
    handler = Profiled(config)
    assert handler.stage(2) == 4
    assert handler.metrics == []


def test_timed_with_profile():
    handler = Profiled({"handler": {"profile": True}})
    assert handler.stage(2) == 4
    ((name, value, idx, unit),) = handler.metrics
    assert (name, idx, unit) == ("ts_handler_stage", None, "ms")
    assert value >= 0


@pytest.mark.parametrize(
    ("line", "tokens"),
    [
        ("You can now install TorchText using pip!", "you can now install torchtext using pip !".split()),
        ('He said: "no, (really)."', "he said no , ( really ) .".split()),
        ("it's<br />done; ok?", "it ' s done ok ?".split()),
    ],
)
def test_basic_english(line, tokens):
    assert text_utils.get_tokenizer("basic_english")(line) == tokens


def test_other_tokenizers(monkeypatch):
    assert text_utils.get_tokenizer(None)("A b") == ["A", "b"]
    assert text_utils.get_tokenizer(list)("ab") == ["a", "b"]
    with pytest.raises(ValueError, match="must be None, a function"):
        text_utils.get_tokenizer("best")
    with pytest.raises(ValueError, match="English only"):
        text_utils.get_tokenizer("basic_english", "de")
    monkeypatch.setitem(__import__("sys").modules, "revtok", None)
    with pytest.raises(RuntimeError, match="needs the Python package revtok"):
        text_utils.get_tokenizer("revtok")


def test_ngrams():
    assert list(text_utils.ngrams_iterator(["a", "b", "c"], 2)) == ["a", "b", "c", "a b", "b c"]
    assert list(text_utils.ngrams_iterator(["a"], 3)) == ["a"]


class Words:
    """A tokenizer whose tokens are indices of these words."""

    words = ["Hel", "lo", " wor", "ld", " again", "\n", "漢", "字"]

    def decode(self, tokens, **_):
        return "".join(self.words[token] for token in tokens)


def test_batch_streamer():
    streamer = TextIteratorStreamerBatch(Words(), 2, skip_prompt=True, timeout=5)
    streamer.put([[9, 9], [9, 9]])
    for tokens in ([0, 6], [1, 7], [2, 4], [3, 4], [5, 4]):
        streamer.put(tokens)
    streamer.end()
    texts = list(streamer)
    assert ["".join(part) for part in zip(*texts)] == ["Hello world\n", "漢字 again again again"]
    assert texts[0] == ["", "漢"]
    assert texts[2][0] == "Hello "
    assert texts[-2][0] == "world\n"


def test_batch_streamer_shows_the_prompt_and_counts_sequences():
    streamer = TextIteratorStreamerBatch(Words(), 1)
    streamer.put([[0, 1, 2]])
    streamer.end()
    assert list(streamer) == [["Hello "], ["wor"]]
    with pytest.raises(ValueError, match="2 sequences"):
        streamer.put([1, 2])


def test_model_venv_sees_the_interpreters_packages(tmp_path):
    import subprocess

    from ts.utils.setup_model_venv import setup_model_venv

    python = setup_model_venv(str(tmp_path / "venv"))
    program = "import sys; print(sys.prefix)"
    found = subprocess.run([python, "-c", program], capture_output=True, text=True, check=True).stdout.strip()
    assert found == str(tmp_path / "venv")
    assert "include-system-site-packages = true" in (tmp_path / "venv" / "pyvenv.cfg").read_text()


def test_hub_without_its_package(monkeypatch):
    from ts.utils.hf_utils import download_model

    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(RuntimeError, match="huggingface_hub"):
        download_model("a/b")
