"""ONNX files in fewer bits, by onnxruntime's own tools."""

from pathlib import Path

AGREEMENT = {"fp16": 0.98, "int8": 0.95}
"""By precision, the share of samples that must get the class that the network gives: rounding decides close calls."""


def lower_precision(file: Path, precision: str) -> None:
    """Rewrite an ONNX file in `precision`, a key of `AGREEMENT`. Inputs and outputs keep their types.

    fp16 rounds parameters and activations to 16 bits. int8 rounds the weights of linear layers and embeddings to 8
    bits, with a scale for each output, and the inputs of linear layers while the file runs (dynamic quantisation).
    Convolutions stay as they are: one scale for all that enters them is too coarse (figures in docs/export.md).
    """
    if precision == "fp16":
        import onnx
        from onnxruntime.transformers.float16 import convert_float_to_float16

        onnx.save(convert_float_to_float16(onnx.load(file), keep_io_types=True), file)
        return
    from onnxruntime.quantization import quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    quant_pre_process(file, file, skip_optimization=True, skip_symbolic_shape=True)
    # In 7 of the 8 bits: processors without VNNI add up products of 8 bits in 16, which overflows unnoticed.
    quantize_dynamic(file, file, ["MatMul", "Gather"], per_channel=True, reduce_range=True)
