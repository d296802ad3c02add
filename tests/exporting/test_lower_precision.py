"""Rounded ONNX files are smaller, and say nearly the same."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from thaw.exporting.lower_precision import lower_precision


@pytest.mark.parametrize(("precision", "share", "tolerance"), [("fp16", 0.55, 2e-3), ("int8", 0.4, 2e-2)])
def test_a_rounded_file_is_smaller_and_says_nearly_the_same(
    tmp_path: Path, precision: str, share: float, tolerance: float
) -> None:
    onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32 * 36, 64), nn.Tanh())
    example, file = torch.randn(2, 3, 8, 8), tmp_path / "model.onnx"
    program = torch.onnx.export(network.eval(), (example,), dynamo=True, verbose=False)
    program.model.metadata_props["class_names"] = '["a"]'
    program.save(file)
    size = file.stat().st_size
    lower_precision(file, precision)
    assert file.stat().st_size < share * size
    session = onnxruntime.InferenceSession(file)
    (found,) = session.run(None, {session.get_inputs()[0].name: example.numpy()})
    assert found.dtype == np.float32
    assert 0 < np.abs(found - network(example).detach().numpy()).max() < tolerance
    assert session.get_modelmeta().custom_metadata_map["class_names"] == '["a"]'
    kinds = [node.op_type for node in onnx.load(file).graph.node]
    assert ("MatMulInteger" in kinds, "ConvInteger" in kinds) == (precision == "int8", False)
