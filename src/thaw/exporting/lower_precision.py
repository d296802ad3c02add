"""ONNX files in fewer bits, by onnxruntime's own tools."""

from pathlib import Path

AGREEMENT = {"fp16": 0.98, "int8": 0.95}
"""By precision, the share of samples that must get the class that the network gives: rounding decides close calls."""


def lower_precision(file: Path, precision: str) -> None:
    """Rewrite an ONNX file in `precision`, a key of `AGREEMENT`. Inputs and outputs keep their types.

    fp16 rounds parameters and activations to 16 bits. int8 rounds the weights of linear layers, embeddings and
    convolutions to 8 bits, with a scale for each output; their inputs are rounded while the file runs (dynamic
    quantisation). Convolutions in groups stay: one scale for all of their inputs is too coarse.
    """
    import onnx

    model = onnx.load(file)
    if precision == "fp16":
        from onnxruntime.transformers.float16 import convert_float_to_float16

        onnx.save(convert_float_to_float16(model, keep_io_types=True), file)
        return
    from onnxruntime.quantization import quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    grouped = [
        node.name
        for node in model.graph.node
        if node.op_type == "Conv" and any(attribute.name == "group" and attribute.i > 1 for attribute in node.attribute)
    ]
    quant_pre_process(file, file, skip_optimization=True, skip_symbolic_shape=True)
    quantize_dynamic(file, file, per_channel=True, nodes_to_exclude=grouped)
