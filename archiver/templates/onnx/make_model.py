"""Makes model.onnx: y = 2 * x0 + 3 * x1 + 1. Needs `pip install onnx`; replace it by the export of your own model."""

from onnx import TensorProto, checker, helper, save


def main():
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 2])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 1])
    weight = helper.make_tensor("weight", TensorProto.FLOAT, [2, 1], [2.0, 3.0])
    bias = helper.make_tensor("bias", TensorProto.FLOAT, [1], [1.0])
    nodes = [helper.make_node("MatMul", ["x", "weight"], ["product"]), helper.make_node("Add", ["product", "bias"], ["y"])]
    graph = helper.make_graph(nodes, "linear", [x], [y], [weight, bias])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    checker.check_model(model)
    save(model, "model.onnx")


if __name__ == "__main__":
    main()
