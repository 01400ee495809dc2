"""The built-in handlers on small models, of each kind of file, through the API."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

pytest.importorskip("torchvision")
pytest.importorskip("onnxruntime")
pytest.importorskip("captum")

import nets

LABELS = json.dumps({str(index): "class{}".format(index) for index in range(6)})
CUSTOM = """
from ts.torch_handler.image_classifier import ImageClassifier


class Custom(ImageClassifier):
    topk = 2

    def postprocess(self, data):
        return [dict(row, custom=True) for row in super().postprocess(data)]
"""
CLASSIFIERS = ("eager", "torchscript", "onnx", "custom")
MODEL_FILE = ("--model-file", "net.py")


@pytest.fixture(scope="module")
def models(zoo):
    """All models of this file. Their workers import torch at the same time, on as many cores as there are."""
    labels = ("--extra-files", "index_to_name.json")
    files = {"index_to_name.json": LABELS}
    eager = dict(files, **{"net.py": nets.CLASSIFIER, "w.pth": nets.state(nets.CLASSIFIER)})
    weights = ("--serialized-file", "w.pth")
    zoo.pack("eager", eager, *MODEL_FILE, *weights, *labels, handler="image_classifier")
    zoo.pack(
        "custom", dict(eager, **{"custom.py": CUSTOM}), *MODEL_FILE, *weights, *labels, handler="custom.py"
    )
    for name, file, content in [
        ("torchscript", "w.pt", nets.torchscript(nets.CLASSIFIER)),
        ("onnx", "w.onnx", nets.onnx_classifier()),
    ]:
        options = ("--serialized-file", file, *labels)
        zoo.pack(name, dict(files, **{file: content}), *options, handler="image_classifier")
    segmenter = {"net.py": nets.SEGMENTER, "w.pth": nets.state(nets.SEGMENTER)}
    zoo.pack("segmenter", segmenter, *MODEL_FILE, *weights, handler="image_segmenter")
    detector = {"net.py": nets.DETECTOR, "w.pth": nets.state(nets.DETECTOR)}
    zoo.pack("detector", detector, *MODEL_FILE, *weights, handler="object_detector")
    text = {
        "net.py": nets.TEXT,
        "w.pth": nets.state(nets.TEXT),
        "source_vocab.pt": nets.saved(nets.VOCABULARY),
    }
    text["index_to_name.json"] = json.dumps({"0": "bad", "1": "good", "2": "unclear"})
    extra = ("--extra-files", "source_vocab.pt,index_to_name.json")
    zoo.pack("text", text, *MODEL_FILE, *weights, *extra, handler="text_classifier")
    names = CLASSIFIERS + ("segmenter", "detector", "text")
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda name: zoo.register(name + ".mar"), names))
    yield zoo
    for name in names:
        zoo.drop(name)


def multipart(**parts):
    """A form with files, as `curl -F name=@file` sends it: body and content type."""
    body = b""
    for name, value in parts.items():
        head = '--limit\r\ncontent-disposition: form-data; name="{0}"; filename="{0}"\r\n'.format(name)
        body += head.encode() + b"content-type: application/octet-stream\r\n\r\n" + value + b"\r\n"
    return body + b"--limit--\r\n", "multipart/form-data; boundary=limit"


def ask(models, name, body, content_type=None, kind="predictions"):
    reply = models.predict(name, body, content_type, kind)
    assert reply.status == 200, "{}\n{}".format(reply, models.log())
    return reply.json()


def test_classifiers_of_each_kind_of_file_agree(models):
    image = nets.picture()
    eager, torchscript, onnx, custom = (ask(models, name, image) for name in CLASSIFIERS)
    assert list(eager) == list(torchscript) == list(onnx)
    assert len(eager) == 5
    for label, probability in eager.items():
        assert torchscript[label] == pytest.approx(probability, abs=1e-4)
        assert onnx[label] == pytest.approx(probability, abs=1e-4)
    best = list(eager.items())[:2]
    assert custom == dict(best, custom=True)


def test_an_uploaded_image(models):
    image = nets.picture()
    assert ask(models, "eager", *multipart(data=image)) == ask(models, "eager", image)


def test_an_explanation_of_an_image(models):
    attributions = ask(models, "eager", *multipart(data=nets.picture(), target=b"1"), kind="explanations")
    assert [len(attributions), len(attributions[0]), len(attributions[0][0])] == [3, 224, 224]
    assert any(value for row in attributions[0] for value in row)


def test_no_image_is_an_error_with_a_cause(models):
    reply = models.predict("eager", b"no image at all")
    assert (reply.status, reply.json()["message"]) == (503, "Prediction failed")
    models.logged("PIL.UnidentifiedImageError")


def test_text(models):
    plain = ask(models, "text", "it is good".encode())
    assert list(plain) == ["bad", "good", "unclear"]
    assert sum(plain.values()) == pytest.approx(1)
    assert ask(models, "text", b"it is good", "text/plain") == plain
    assert ask(models, "text", *multipart(data=b"it is good")) == plain


def test_an_explanation_of_a_text(models):
    answer = ask(models, "text", *multipart(data=b"it is good", target=b"1"), kind="explanations")
    assert answer["words"] == ["it", "is", "good", "it is", "is good"]
    assert len(answer["importances"]) == 5


def test_segmenter(models):
    pixels = ask(models, "segmenter", nets.picture())
    assert [len(pixels), len(pixels[0])] == [224, 224]
    for label, probability in pixels[100]:
        assert label in range(4)
        assert 0.25 <= probability <= 1


def test_detector(models):
    found = ask(models, "detector", nets.picture((80, 60)))
    assert 1 <= len(found) <= 5
    for row in found:
        assert list(row) == ["1", "score"]
        assert row["score"] >= 0.5
        left, top, right, bottom = row["1"]
        assert 0 <= left <= right <= 80
        assert 0 <= top <= bottom <= 60
