"""The built-in handlers on small models with random weights, of each kind of file, and explanations."""

import base64
import io
import json

import pytest

torch = pytest.importorskip("torch")
torchvision = pytest.importorskip("torchvision")
Image = pytest.importorskip("PIL.Image")

CLASSIFIER = (
    "import torch\n"
    "class Net(torch.nn.Module):\n"
    "    def __init__(self):\n"
    "        super().__init__()\n"
    "        self.conv = torch.nn.Conv2d(3, 4, 7, stride=7)\n"
    "        self.head = torch.nn.Linear(4, {classes})\n"
    "    def forward(self, x):\n"
    "        return self.head(torch.relu(self.conv(x)).mean(dim=(2, 3)))\n"
)
CUSTOM = (
    "from ts.torch_handler.image_classifier import ImageClassifier\n"
    "class Custom(ImageClassifier):\n"
    "    topk = 2\n"
    "    def postprocess(self, data):\n"
    "        return [dict(row, custom=True) for row in super().postprocess(data)]\n"
)


def make(source):
    namespace = {"__name__": "made"}
    exec(source, namespace)
    torch.manual_seed(2)
    return next(value for value in namespace.values() if isinstance(value, type))().eval()


def saved(value, save=torch.save):
    out = io.BytesIO()
    save(value, out)
    return out.getvalue()


def picture(mode="RGB", size=(300, 280), kind="PNG"):
    image = Image.effect_noise(size, 90).convert(mode) if mode != "P" else Image.new("P", size)
    out = io.BytesIO()
    image.save(out, kind)
    return bytearray(out.getvalue())


LABELS = {"index_to_name.json": json.dumps({str(index): "class{}".format(index) for index in range(6)})}


def classifier_files(kind, classes, tmp_path):
    source = CLASSIFIER.format(classes=classes)
    net = make(source)
    if kind == "eager":
        return {"net.py": source, "w.pth": saved(net.state_dict())}, {
            "modelFile": "net.py",
            "serializedFile": "w.pth",
        }
    if kind == "torchscript":
        return {"w.pt": saved(torch.jit.trace(net, torch.zeros(1, 3, 224, 224)), torch.jit.save)}, {
            "serializedFile": "w.pt"
        }
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    path = str(tmp_path / "w.onnx")
    shapes = ({0: torch.export.Dim("batch")},)
    example = (torch.zeros(2, 3, 224, 224),)
    torch.onnx.export(net, example, path, dynamic_shapes=shapes, external_data=False, verbose=False)
    with open(path, "rb") as file:
        return {"w.onnx": file.read()}, {"serializedFile": "w.onnx"}


@pytest.fixture
def classifier(archive, load, tmp_path):
    def make_model(
        kind="eager", handler="image_classifier", classes=6, labels=True, envelope=None, limit=True
    ):
        files, model = classifier_files(kind, classes, tmp_path)
        if labels:
            files.update(LABELS)
        files["custom.py"] = CUSTOM
        directory = archive(files, **model)
        return load(directory, handler, batch_size=4, envelope=envelope, limit_max_image_pixels=limit)

    return make_model


@pytest.mark.parametrize("handler", ["image_classifier", "custom.py", "densenet_handler"])
def test_each_kind_of_file_gives_the_same_classes(classifier, handler):
    image = picture()
    answers = [classifier(kind, handler).ask({"data": image})[0] for kind in ("eager", "torchscript", "onnx")]
    assert list(answers[0]) == list(answers[1]) == list(answers[2])
    for label, probability in answers[0].items():
        assert answers[1][label] == pytest.approx(probability, abs=1e-4)
        assert answers[2][label] == pytest.approx(probability, abs=1e-4)


def test_classes_are_the_best_five_in_order(classifier):
    (answer,) = classifier().ask({"data": picture()})
    values = list(answer.values())
    assert len(answer) == 5
    assert values == sorted(values, reverse=True)
    assert set(answer) < {"class{}".format(index) for index in range(6)}


def test_custom_handler(classifier):
    (answer,) = classifier(handler="custom.py").ask({"data": picture()})
    assert len(answer) == 3
    assert answer["custom"] is True


def test_without_labels_classes_are_numbers(classifier):
    (answer,) = classifier(labels=False).ask({"data": picture()})
    assert set(answer) < set("012345")


def test_fewer_classes_than_five(classifier):
    (answer,) = classifier(classes=2).ask({"data": picture()})
    assert sum(answer.values()) == pytest.approx(1)
    assert len(answer) == 2


def test_max_result_classes():
    from ts.torch_handler.image_classifier import ImageClassifier

    handler = ImageClassifier()
    assert handler.get_max_result_classes() == 5
    handler.set_max_result_classes(1)
    assert handler.get_max_result_classes() == 1
    assert len(handler.postprocess(torch.rand(2, 9))[0]) == 1


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P"])
def test_modes_of_images(classifier, mode):
    assert len(classifier().ask({"data": picture(mode)})[0]) == 5


def test_ways_to_send_an_image(classifier):
    image = picture()
    tensor = torch.zeros(3, 224, 224).tolist()
    model = classifier()
    text = base64.b64encode(image).decode()
    answers = model.ask({"data": image}, {"body": image}, {"body": text}, {"body": tensor})
    assert answers[0] == answers[1] == answers[2]
    assert len(answers[3]) == 5


def test_limit_of_pixels(classifier, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    code, _, _ = classifier().predict({"data": picture()})
    assert code == 503
    assert classifier(limit=False).predict({"data": picture()})[0] == 200


@pytest.mark.parametrize("envelope", ["body", "json", "kserve"])
def test_envelopes(classifier, envelope):
    model = classifier(envelope=envelope)
    image = picture()
    plain = classifier().ask({"data": image})[0]
    text = base64.b64encode(image).decode()
    row = {"b64": text} if envelope == "json" else {"data": text}
    if envelope == "body":
        assert model.ask({"data": image}) == [plain]
        return
    answers = model.ask({"body": {"instances": [row, row]}}, {"body": {"instances": [row]}})
    assert [len(answer["predictions"]) for answer in answers] == [2, 1]
    for prediction in answers[0]["predictions"] + answers[1]["predictions"]:
        assert prediction == pytest.approx(plain, abs=1e-5)


def test_kserve_v2(classifier):
    model = classifier(envelope="kservev2")
    data = [0.5] * (3 * 224 * 224)
    row = {"name": "image", "shape": [3, 224, 224], "datatype": "FP32", "data": data}
    (answer,) = model.ask({"body": {"id": "a", "inputs": [row]}})
    (output,) = answer["outputs"]
    assert (answer["id"], output["name"], output["datatype"]) == ("a", "image", "BYTES")
    assert len(json.loads(output["data"][0])) == 5


def test_explanations_of_images(classifier):
    pytest.importorskip("captum")
    (attributions,) = classifier().explain({"data": picture(), "target": bytearray(b"1")})
    assert torch.tensor(attributions).shape == (3, 224, 224)
    assert torch.tensor(attributions).abs().sum() > 0


def test_models_on_onnx_runtime_cannot_be_explained(classifier, caplog):
    model = classifier("onnx")
    assert model.predict({"data": picture()}, headers={"explain": "True"})[0] == 503
    assert "explanations need gradients" in caplog.text


def test_explanations_without_captum(classifier, monkeypatch, caplog):
    model = classifier()
    monkeypatch.setitem(__import__("sys").modules, "captum", None)
    monkeypatch.delitem(__import__("sys").modules, "captum.attr", raising=False)
    assert model.predict({"data": picture()}, headers={"explain": "True"})[0] == 503
    assert "explanations of images need the Python package captum" in caplog.text
    assert model.predict({"data": picture()})[0] == 200


SEGMENTER = (
    "import torch\n"
    "class Net(torch.nn.Module):\n"
    "    def __init__(self):\n"
    "        super().__init__()\n"
    "        self.conv = torch.nn.Conv2d(3, 4, 1)\n"
    "    def forward(self, x):\n"
    "        return {'out': self.conv(x), 'aux': x}\n"
)


def test_segmenter(archive, load):
    weights = saved(make(SEGMENTER).state_dict())
    model = load(
        archive({"net.py": SEGMENTER, "w.pth": weights}, modelFile="net.py", serializedFile="w.pth"),
        "image_segmenter",
        batch_size=2,
    )
    answers = model.ask({"data": picture()}, {"body": picture("L")})
    for answer in answers:
        pixels = torch.tensor(answer)
        assert pixels.shape == (224, 224, 2)
        assert set(pixels[..., 0].unique().tolist()) <= {0.0, 1.0, 2.0, 3.0}
        assert ((pixels[..., 1] >= 0.25) & (pixels[..., 1] <= 1)).all()


DETECTOR = (
    "import torch\n"
    "class Net(torch.nn.Module):\n"
    "    def forward(self, images):\n"
    "        return [self.found(*image.shape) for image in images]\n"
    "    def found(self, _, height, width):\n"
    "        boxes = torch.tensor([[0.0, 0.0, float(width), float(height)], [1.0, 2.0, 3.0, 4.0]])\n"
    "        return {'boxes': boxes, 'labels': torch.tensor([1, 0]), 'scores': torch.tensor([0.75, 0.25])}\n"
)


@pytest.mark.parametrize("sizes", [[(64, 48)], [(64, 48), (64, 48)], [(64, 48), (32, 16)]])
def test_detector(archive, load, sizes):
    labels = {"index_to_name.json": json.dumps({"object_type_names": ["bg", "person"]})}
    directory = archive(dict(labels, **{"net.py": DETECTOR}), modelFile="net.py")
    model = load(directory, "object_detector", batch_size=2)
    answers = model.ask(*[{"data": picture(size=size)} for size in sizes])
    assert answers == [
        [{"person": [0.0, 0.0, float(size[0]), float(size[1])], "score": 0.75}] for size in sizes
    ]


def test_detector_threshold():
    from ts.torch_handler.object_detector import ObjectDetector

    handler = ObjectDetector()
    found = {"boxes": torch.zeros(2, 4), "labels": torch.tensor([3, 4]), "scores": torch.tensor([0.5, 0.1])}
    assert handler.postprocess([found]) == [[{"3": [0.0] * 4, "score": 0.5}]]
    handler.threshold = 0.05
    assert [list(row)[0] for row in handler.postprocess(({}, [found]))[0]] == ["3", "4"]


def test_detection_model_of_torchvision(archive, load):
    source = (
        "import torch\n"
        "from torchvision.models.detection import ssdlite320_mobilenet_v3_large as make\n"
        "class Net(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        torch.manual_seed(3)\n"
        "        self.net = make(weights=None, weights_backbone=None, num_classes=3, score_thresh=0.0)\n"
        "    def forward(self, images):\n"
        "        return self.net(images)\n"
    )
    model = load(archive({"net.py": source}, modelFile="net.py"), "object_detector")
    model.service._entry_point.__self__.threshold = 0.0
    (answer,) = model.ask({"data": picture(size=(80, 60))})
    assert answer
    assert all(len(row) == 2 and 0 <= row["score"] <= 1 for row in answer)


TEXT = (
    "import torch\n"
    "class Net(torch.nn.Module):\n"
    "    def __init__(self):\n"
    "        super().__init__()\n"
    "        self.embedding = torch.nn.{layer}\n"
    "        self.fc = torch.nn.Linear(4, 3)\n"
    "    def forward(self, text, offsets):\n"
    "        return self.fc({mix})\n"
)
BAG = TEXT.format(layer="EmbeddingBag(20, 4)", mix="self.embedding(text, offsets)")
SUM = TEXT.format(layer="EmbeddingBag(20, 4, mode='sum')", mix="self.embedding(text, offsets)")
PLAIN = TEXT.format(layer="Embedding(20, 4)", mix="self.embedding(text).mean(dim=0, keepdim=True)")
VOCABULARY = {"<unk>": 0, "it": 1, "is": 2, "good": 3, "it is": 4, "is good": 5, "not": 6}


@pytest.fixture
def text_model(archive, load):
    def make_model(source=BAG, vocabulary="source_vocab.pt", **model):
        files = {"net.py": source, "w.pth": saved(make(source).state_dict()), vocabulary: saved(VOCABULARY)}
        files["index_to_name.json"] = json.dumps({"0": "bad", "1": "good", "2": "unclear"})
        return load(
            archive(files, modelFile="net.py", serializedFile="w.pth", **model),
            "text_classifier",
            envelope=None,
        )

    return make_model


def test_text_classifier(text_model):
    (answer,) = text_model().ask({"data": bytearray("<b>It's</b> góod!".encode())})
    assert list(answer) == ["bad", "good", "unclear"]
    assert sum(answer.values()) == pytest.approx(1)
    assert text_model().ask({"body": "it is good"}) == [answer]


def test_text_with_a_vocabulary_of_another_name(text_model):
    assert text_model(vocabulary="words.pt", sourceVocab="words.pt").ask({"body": "good"})


def test_missing_vocabulary(archive, load):
    with pytest.raises(RuntimeError, match="Missing the source_vocab file: source_vocab.pt"):
        load(archive({"net.py": BAG}, modelFile="net.py"), "text_classifier")


def test_text_classifier_takes_no_batches(text_model, caplog):
    assert text_model().predict({"body": "a"}, {"body": "b"})[0] == 503
    assert "one request at a time, not 2" in caplog.text


@pytest.mark.parametrize("source", [BAG, SUM, PLAIN], ids=["mean", "sum", "embedding"])
def test_explanations_of_texts(text_model, source):
    pytest.importorskip("captum")
    model = text_model(source)
    (answer,) = model.explain({"body": "it is good", "target": 1})
    assert answer["words"] == ["it", "is", "good", "it is", "is good"]
    importances = torch.tensor(answer["importances"])
    assert importances.shape == (5,)
    assert float(importances.norm()) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("source", [BAG, SUM], ids=["mean", "sum"])
def test_attributions_of_a_bag_add_up(text_model, source):
    pytest.importorskip("captum")
    handler = text_model(source).service._entry_point.__self__
    indices = torch.tensor([1, 2, 3])
    attributions = handler._attributions(indices, 1)
    offsets = torch.tensor([0])
    with torch.no_grad():
        gain = handler.model(indices, offsets)[0, 1] - handler.model.fc.bias[1]
    assert float(attributions.sum()) == pytest.approx(float(gain), abs=1e-5)


@pytest.mark.parametrize(
    ("method", "text", "result"),
    [
        (
            "_expand_contractions",
            "I'm sure they can't, it\u2019s Won't",
            "I am sure they cannot, it is Will not",
        ),
        ("_remove_accented_characters", "Crème Brûlée", "Creme Brulee"),
        ("_remove_html_tags", "<p class='a'>a&nbsp;b</p>", "ab"),
        ("_remove_punctuation", "a, b. (c)!", "a b c"),
        ("_remove_puncutation", "a, b. (c)!", "a b c"),
        ("_tokenize", "Hello, you", ["hello", ",", "you"]),
    ],
)
def test_cleaning(method, text, result):
    from ts.torch_handler.text_handler import TextHandler

    assert getattr(TextHandler(), method)(text) == result


def test_words_of_tokens():
    from ts.torch_handler.text_handler import TextHandler

    handler = TextHandler()
    handler.source_vocab = VOCABULARY
    assert handler.get_word_token(["it", 3, torch.tensor(6), 99]) == ["it", "good", "not", "<unk>"]
    assert [handler.token_index(token) for token in ("it", "never seen")] == [1, 0]
