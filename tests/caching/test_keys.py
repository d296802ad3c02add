import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, relu

from tests.language import pretrained
from tests.tiny import backbone
from thaw.caching.keys import digest_of_values, environment, stage_digest
from thaw.storage import digest, digest_of_tensors


class Kind(Enum):
    A = 1
    B = 2


@dataclass
class Choices:
    scale: int


class Attention(nn.Module):
    """What is printed of it shows neither its heads nor its activation."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Linear(4, 4)
        self.norm = nn.BatchNorm1d(4)
        self.num_heads, self.scales = 2, {"query": [1.0, 2.0]}
        self.activation: Callable[..., Tensor] = relu
        self.table = (torch.arange(3),)
        self.kind, self.choices, self.array = Kind.A, Choices(1), np.arange(3)


def made() -> Attention:
    torch.manual_seed(0)
    return Attention().eval()


def test_equal_stages_have_equal_digests() -> None:
    assert stage_digest(made()) == stage_digest(made())


@pytest.mark.parametrize(
    "change",
    [
        lambda stage: stage.matrix.weight.data[0, 0].add_(1e-6),
        lambda stage: stage.norm.running_mean.add_(1e-6),
        lambda stage: setattr(stage, "num_heads", 4),
        lambda stage: setattr(stage, "scales", {"query": [1.0, 3.0]}),
        lambda stage: setattr(stage, "activation", gelu),
        lambda stage: setattr(stage, "activation", partial(gelu, approximate="tanh")),
        lambda stage: setattr(stage, "table", (torch.arange(4),)),
        lambda stage: setattr(stage.norm, "eps", 1e-3),
        lambda stage: stage.add_module("more", nn.Identity()),
        lambda stage: stage.to(torch.float64),
        lambda stage: setattr(stage, "kind", Kind.B),
        lambda stage: setattr(stage, "choices", Choices(2)),
        lambda stage: setattr(stage, "array", np.arange(4)),
        lambda stage: stage.register_buffer("unsaved", torch.ones(1), persistent=False),
    ],
)
def test_whatever_changes_the_output_changes_the_digest(change: Callable[[Attention], None]) -> None:
    stage = made()
    change(stage)
    assert stage_digest(stage) != stage_digest(made())


def test_partials_differ_by_what_they_are_of() -> None:
    one, other = made(), made()
    one.activation, other.activation = partial(gelu, approximate="tanh"), partial(gelu, approximate="none")
    assert stage_digest(one) != stage_digest(other)


def test_another_process_finds_the_same(tmp_path: Path) -> None:
    program = (
        "import torch; from tests.caching.test_keys import made; from thaw.caching.keys import *;"
        "print(stage_digest(made()), environment())"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.split() == [stage_digest(made()), environment()]


def test_a_network_of_a_library_is_the_same_from_a_folder_and_from_what_a_run_records(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    from thaw.models.huggingface import huggingface

    folder = pretrained(tmp_path / "bert", "bert")
    first = huggingface(str(folder))
    again = huggingface(str(folder), weights=None, settings=first.settings, input_spec=first.input_spec)
    for name, stage in first.stages.items():
        again.stages[name].load_state_dict(stage.state_dict())
        assert stage_digest(stage.eval()) == stage_digest(again.stages[name].eval()), name


def test_the_mode_is_no_part_of_it() -> None:
    stage = backbone().stages["stem"]
    assert stage_digest(stage.train()) == stage_digest(stage.eval())


def test_parts_do_not_run_into_each_other() -> None:
    assert digest("ab", "c") != digest("a", "bc")
    assert digest_of_values({"a": 1, "b": 2}) == digest_of_values({"b": 2, "a": 1})
    assert digest_of_tensors(torch.zeros(2, 3)) != digest_of_tensors(torch.zeros(3, 2))
    assert digest_of_tensors({"a": torch.ones(1)}) != digest_of_tensors({"b": torch.ones(1)})


def test_the_code_of_a_class_without_a_file_counts() -> None:
    found = []
    for factor in (2, 3):
        names: dict[str, type] = {}
        program = (
            f"from torch import nn\nclass Made(nn.Module):\n    def forward(self, x):\n        return x * {factor}"
        )
        exec(program, {"__name__": "nowhere"}, names)
        found.append(stage_digest(names["Made"]()))
    assert found[0] != found[1]
