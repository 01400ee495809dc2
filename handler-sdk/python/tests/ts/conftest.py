"""Drives handlers in this process as a worker does: unpacked archive, loader, context, one call for each
batch.
"""

import json
import os
import sys

import pytest

SDK = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
if sys.path[0] != SDK:
    sys.path.insert(0, SDK)

from frames import parse_predict_response  # noqa: E402

REPOSITORY = os.path.dirname(os.path.dirname(SDK))


class Served:
    """A loaded model. `predict` takes rows as handlers see them, and gives what clients see."""

    def __init__(self, service):
        self.service = service
        self.context = service.context

    def predict(self, *rows, headers=None, each_headers=None):
        """`(code, message, answers)`; each answer has `status`, `headers`, `content_type` and `body`."""
        batch = []
        for index, row in enumerate(rows):
            pairs = dict(headers or {}, **(each_headers[index] if each_headers else {}))
            parameters = [{"name": key, "contentType": "", "value": value} for key, value in row.items()]
            fields = [{"name": key.encode(), "value": value.encode()} for key, value in pairs.items()]
            batch.append(
                {"requestId": "r{}".format(index).encode(), "headers": fields, "parameters": parameters}
            )
        return parse_predict_response(bytes(self.service.predict(batch)))

    def ask(self, *rows, **kwargs):
        """The bodies of the answers, parsed where they are JSON; fails unless all went well."""
        code, message, answers = self.predict(*rows, **kwargs)
        assert code == 200, message
        bodies = [answer.body for answer in answers]
        return [json.loads(body) for body in bodies]

    def explain(self, *rows, **kwargs):
        """The same for explanations."""
        return self.ask(*rows, headers={"explain": "True"}, **kwargs)


@pytest.fixture
def archive(tmp_path_factory):
    """Makes an unpacked archive: `archive({"model.py": "…"}, modelFile="model.py", config={…})`."""

    def make(files=None, config=None, **model):
        directory = tmp_path_factory.mktemp("model")
        for name, content in (files or {}).items():
            path = directory / name
            if isinstance(content, bytes):
                path.write_bytes(content)
            else:
                path.write_text(content, encoding="utf-8")
        if config is not None:
            (directory / "model-config.yaml").write_text(json.dumps(config))  # JSON is YAML
            model["configFile"] = "model-config.yaml"
        manifest = {"model": dict({"modelName": "m", "modelVersion": "1.0"}, **model)}
        (directory / "MAR-INF").mkdir()
        (directory / "MAR-INF" / "MANIFEST.json").write_text(json.dumps(manifest))
        return directory

    return make


@pytest.fixture
def load(monkeypatch):
    """Loads an unpacked archive; afterwards its modules and import path are gone again."""
    from ts.metrics.metric_cache_yaml_impl import MetricsCacheYamlImpl
    from ts.model_loader import ModelLoaderFactory

    modules, path = set(sys.modules), list(sys.path)
    directories = []

    def load_model(directory, handler, *, envelope=None, batch_size=1, gpu=None, limit_max_image_pixels=True):
        directories.append(str(directory))
        monkeypatch.chdir(directory)
        cache = MetricsCacheYamlImpl(None, collect=True)
        loader = ModelLoaderFactory.get_model_loader()
        service = loader.load(
            "m", str(directory), handler, gpu, batch_size, envelope, limit_max_image_pixels, cache
        )
        return Served(service)

    yield load_model
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(tuple(directories) or ("\0",)):
            del sys.modules[name]
