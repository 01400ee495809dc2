"""Small models with fixed random weights, in each kind of file."""

import io

import torch
from PIL import Image

CLASSIFIER = """
import torch


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 7, stride=7)
        self.head = torch.nn.Linear(4, 6)

    def forward(self, x):
        return self.head(torch.relu(self.conv(x)).mean(dim=(2, 3)))
"""
SEGMENTER = """
import torch


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 1)

    def forward(self, x):
        return {"out": self.conv(x)}
"""
DETECTOR = """
import torch
from torchvision.models.detection import ssdlite320_mobilenet_v3_large


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.net = ssdlite320_mobilenet_v3_large(
            weights=None, weights_backbone=None, num_classes=3, score_thresh=0.0, detections_per_img=5
        )
        with torch.no_grad():  # sure of class 1, so that something is above the handler's threshold
            for block in self.net.head.classification_head.module_list:
                block[-1].bias.view(-1, 3)[:, 1] = 9.0

    def forward(self, images):
        return self.net(images)
"""
TEXT = """
import torch


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.EmbeddingBag(20, 4)
        self.fc = torch.nn.Linear(4, 3)

    def forward(self, text, offsets):
        return self.fc(self.embedding(text, offsets))
"""
VOCABULARY = {"<unk>": 0, "it": 1, "is": 2, "good": 3, "it is": 4, "is good": 5}


def make(source):
    """The model of a model file."""
    namespace = {"__name__": "made"}
    exec(source, namespace)
    torch.manual_seed(2)
    return namespace["Net"]().eval()


def saved(value, save=torch.save):
    out = io.BytesIO()
    save(value, out)
    return out.getvalue()


def state(source):
    """The state dict of a model file's model, as a file."""
    return saved(make(source).state_dict())


def torchscript(source):
    return saved(torch.jit.trace(make(source), torch.zeros(1, 3, 224, 224)), torch.jit.save)


def onnx_classifier():
    """CLASSIFIER by hand: torch's exporter takes longer than all the rest."""
    from onnx import TensorProto, helper, numpy_helper

    weights = [numpy_helper.from_array(v.numpy(), k) for k, v in make(CLASSIFIER).state_dict().items()]
    nodes = [
        helper.make_node("Conv", ["x", "conv.weight", "conv.bias"], ["c"], strides=[7, 7]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "head.weight", "head.bias"], ["y"], transB=1),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 224, 224])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 6])
    graph = helper.make_graph(nodes, "classifier", [x], [y], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model.SerializeToString()


def picture(size=(300, 280)):
    """A PNG."""
    out = io.BytesIO()
    Image.effect_noise(size, 90).convert("RGB").save(out, "PNG")
    return out.getvalue()
