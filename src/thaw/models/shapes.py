"""What comes out of each stage, without computing it."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch._subclasses import FakeTensorMode

from thaw.types import ImageSpec, InputSpec


def outputs(stages: Mapping[str, nn.Module], spec: InputSpec) -> Iterator[tuple[str, Any]]:
    """("input", ...) and (stage, its output) for two samples, as tensors without content. Texts are of 8 tokens.

    Puts the stages into evaluation mode.
    """
    parameter = next((one for stage in stages.values() for one in stage.parameters()), torch.empty(0))
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad(), parameter.device:
        x = _example(spec, parameter.dtype)
        yield "input", x
        for name, stage in stages.items():
            x = stage.eval()(x)
            yield name, x


def _example(spec: InputSpec, dtype: torch.dtype) -> Any:
    if isinstance(spec, ImageSpec):
        return torch.zeros(2, spec.channels, spec.size_px, spec.size_px, dtype=dtype)
    ids = torch.full((2, 8), spec.pad_id)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
