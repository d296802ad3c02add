"""Whatever changes an output changes its key, and nothing else does."""

import importlib
import subprocess
import sys
import threading
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import cache, partial
from pathlib import Path
from types import MethodType, SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn.functional import gelu, relu

from tests.language import NETWORKS, pretrained
from tests.tiny import backbone
from thaw.caching import keys
from thaw.caching.keys import UndigestibleError, code_digest, environment, network_digest, values_digest
from thaw.storage import digest, digest_of_tensors


class Kind(Enum):
    A = 1
    B = 2


@dataclass
class Choices:
    scale: int


class Range(NamedTuple):
    low: float
    high: float


class Slotted:
    __slots__ = ("scale",)

    def __init__(self, scale: float):
        self.scale = scale


class Scaled:
    def __init__(self, scale: float):
        self.args = Namespace(scale=scale)
        self.self = self

    def times(self, inputs: Tensor) -> Tensor:
        return inputs * self.args.scale


def closure(scale: float) -> Callable[[Tensor], Tensor]:
    return lambda inputs: inputs * scale


class Attention(nn.Module):
    """Printing it shows neither its heads nor its activation."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Linear(4, 4)
        self.norm = nn.BatchNorm1d(4)
        self.num_heads, self.scales = 2, {"query": [1.0, 2.0]}
        self.activation: Callable[..., Tensor] = relu
        self.table = (torch.arange(3),)
        self.kind, self.choices, self.array = Kind.A, Choices(1), np.arange(3)
        self.args, self.more = Namespace(scale=1.0), SimpleNamespace(inner=Namespace(scales=[1.0]))
        self.range, self.slotted, self.scaled = Range(0, 1), Slotted(1.0), Scaled(1.0)
        self.function, self.method, self.names = closure(1.0), Scaled(1.0).times, {"a", "b"}
        self.unregistered = [nn.Linear(1, 1, device="meta"), self.matrix][1:]
        self.register_buffer("positions", torch.arange(4), persistent=False)


def attention() -> Attention:
    torch.manual_seed(0)
    return Attention().eval()


CHANGES: dict[str, Callable[[Any], Any]] = {
    "heads": lambda m: setattr(m, "num_heads", 4),
    "type": lambda m: setattr(m, "num_heads", True),
    "mapping": lambda m: setattr(m, "scales", {"query": [1.0, 3.0]}),
    "function": lambda m: setattr(m, "activation", gelu),
    "partial": lambda m: setattr(m, "activation", partial(gelu, approximate="tanh")),
    "tensor": lambda m: setattr(m, "table", (torch.arange(4),)),
    "submodule": lambda m: setattr(m.norm, "eps", 1e-3),
    "more": lambda m: m.add_module("other", nn.Identity()),
    "enum": lambda m: setattr(m, "kind", Kind.B),
    "dataclass": lambda m: setattr(m, "choices", Choices(2)),
    "array": lambda m: setattr(m, "array", np.arange(4)),
    "namespace": lambda m: setattr(m, "args", Namespace(scale=2.0)),
    "nested": lambda m: m.more.inner.scales.append(1.0),
    "namedtuple": lambda m: setattr(m, "range", Range(0, 2)),
    "slots": lambda m: setattr(m, "slotted", Slotted(2.0)),
    "object": lambda m: setattr(m, "scaled", Scaled(2.0)),
    "closure": lambda m: setattr(m, "function", closure(2.0)),
    "lambda": lambda m: setattr(m, "function", lambda inputs: inputs),
    "method": lambda m: setattr(m, "method", Scaled(2.0).times),
    "forward": lambda m: setattr(m, "forward", MethodType(Scaled.times, m)),
    "set": lambda m: setattr(m, "names", {"a", "c"}),
    "unregistered": lambda m: setattr(m, "unregistered", [nn.Linear(4, 4)]),
    "class": lambda m: setattr(m, "choices", Choices),
    "unsaved buffer": lambda m: m.positions.add_(1),
}


def test_equal_networks_have_equal_digests() -> None:
    assert network_digest(attention()) == network_digest(attention())


def test_recurrent_layers_have_a_digest() -> None:
    assert network_digest(nn.GRU(3, 4)) == network_digest(nn.GRU(3, 4))
    assert network_digest(nn.GRU(3, 4)) != network_digest(nn.GRU(3, 4, batch_first=True))


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_changes_the_output_changes_the_digest(change: str) -> None:
    network = attention()
    CHANGES[change](network)
    assert network_digest(network) != network_digest(attention())


def test_weights_mode_and_hooks_are_not_part_of_it() -> None:
    network = attention().train()
    network.matrix.weight.data[0, 0] += 1
    network.norm.running_mean.add_(1)  # type: ignore[operator]
    network.register_forward_hook(lambda *_: None)
    network.generator = torch.Generator().manual_seed(1)  # type: ignore[assignment]
    expected = attention()
    expected.generator = torch.Generator()  # type: ignore[assignment]
    assert network_digest(network) == network_digest(expected)


def test_partials_differ_by_their_arguments() -> None:
    one, other = attention(), attention()
    one.activation, other.activation = partial(gelu, approximate="tanh"), partial(gelu, approximate="none")
    assert network_digest(one) != network_digest(other)


def test_what_has_no_digest_is_named(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file:
        for value, kind in ((threading.Lock(), "_thread.lock"), (file, "_io.TextIOWrapper")):
            network = nn.Sequential(attention())
            network[0].args = Namespace(inner=[value])  # type: ignore[assignment]
            with pytest.raises(UndigestibleError, match=rf"network\.0\.args\.inner holds a {kind}"):
                network_digest(network)
            with pytest.raises(ValueError, match=rf"values\.value holds a {kind}"):
                values_digest({"value": value})


def test_graph_modules_are_known_by_their_code() -> None:
    def traced(scale: float) -> fx.GraphModule:
        class Traced(nn.Module):
            def forward(self, inputs: Tensor) -> Tensor:
                return relu(inputs) * scale

        return fx.symbolic_trace(Traced())

    assert network_digest(traced(1.0)) == network_digest(traced(1.0)) != network_digest(traced(2.0))


def test_functions_and_classes_with_the_same_name_differ() -> None:
    def local(scale: float) -> nn.Module:
        class Local(nn.Module):
            def forward(self, inputs: Tensor) -> Tensor:
                return inputs * scale

        return Local()

    assert network_digest(local(1.0)) == network_digest(local(1.0)) != network_digest(local(2.0))
    functions = [lambda inputs: inputs + 1, lambda inputs: inputs - 1]
    assert values_digest(functions[0]) == values_digest(functions[0]) != values_digest(functions[1])


def libraries() -> dict[str, Callable[[], nn.Module]]:
    import torchvision

    networks: dict[str, Callable[[], nn.Module]] = {
        "lstm": lambda: nn.LSTM(3, 4),
        "resnet18": torchvision.models.resnet18,
        "vit_b_16": lambda: torchvision.models.vit_b_16(image_size=32),
    }
    if importlib.util.find_spec("timm"):
        import timm

        names = ["resnet18", "convnext_atto", "vit_tiny_patch16_224", "efficientnet_b0", "swin_tiny_patch4_window7_224"]
        for name in (*names, *timm.list_models("vit_small_patch16_dinov3")):
            networks[f"timm {name}"] = partial(timm.create_model, name, pretrained=False)
    if importlib.util.find_spec("transformers"):
        import transformers

        for kind in ("bert", "llama"):
            settings = transformers.AutoConfig.for_model(kind, **NETWORKS[kind])
            networks[kind] = partial(transformers.AutoModel.from_config, settings)
    return networks


LIBRARIES = libraries()


@pytest.mark.parametrize("name", LIBRARIES)
def test_networks_of_libraries(name: str) -> None:
    network, expected = LIBRARIES[name](), network_digest(LIBRARIES[name]())
    assert network_digest(network) == expected
    for attribute in ("eps", "num_heads", "scale", "stride", "head_dim", "p", "variance_epsilon", "dropout"):
        for module in network.modules():
            if isinstance(value := vars(module).get(attribute), (int, float)):
                setattr(module, attribute, value + 1)
                assert network_digest(network) != expected, (attribute, module)
                setattr(module, attribute, value)
                break
    assert network_digest(network) == expected


def all_digests() -> list[str]:
    networks = [attention(), *(LIBRARIES[name]() for name in LIBRARIES if "vit_b" not in name)]
    return [environment(), code_digest(Attention, closure), *map(network_digest, networks)]


@pytest.mark.run
def test_another_process_finds_the_same() -> None:
    program = "from tests.caching.test_keys import all_digests; print(*all_digests())"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.split() == all_digests()


def test_a_network_is_the_same_from_a_folder_and_from_what_a_run_records(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    from thaw.models.huggingface import huggingface

    folder = pretrained(tmp_path / "bert", "bert")
    first = huggingface(str(folder))
    second = huggingface(str(folder), weights=None, settings=first.settings, input_spec=first.input_spec)
    assert network_digest(first.network) == network_digest(second.network)


def test_parts_do_not_run_into_each_other() -> None:
    assert digest("ab", "c") != digest("a", "bc")
    assert values_digest({"a": 1, "b": 2}) == values_digest({"b": 2, "a": 1})
    assert len({values_digest(value) for value in (1, 1.0, True, "1", [1], (1,), {1}, {1: 1}, None, np.int64(1))}) == 10
    assert digest_of_tensors(torch.zeros(2, 3)) != digest_of_tensors(torch.zeros(3, 2))
    assert digest_of_tensors(torch.zeros(2)) != digest_of_tensors(torch.zeros(2, dtype=torch.int32))
    assert digest_of_tensors({"a": torch.ones(1)}) != digest_of_tensors({"b": torch.ones(1)})


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Writes files of a project of the user's, and gives the digest of the class `Source` in its `data/source.py`."""
    files = {
        "lab/__init__.py": "",
        "lab/data/__init__.py": "",
        "lab/data/source.py": """
            from typing import TYPE_CHECKING
            import numpy
            from . import crop
            from lab.data.base import Base
            if TYPE_CHECKING:
                from lab.types import Types
            class Source(Base):
                def read(self):
                    import flat
        """,
        "lab/data/base.py": "from ..colours import gray\nclass Base: ...",
        "lab/data/crop.py": "from .deep import sides",
        "lab/data/deep/__init__.py": "from lab.data.deep.sides import *",
        "lab/data/deep/sides.py": "SIDES = 4",
        "lab/colours.py": "gray = 1",
        "lab/types.py": "class Types: ...",
        "lab/training.py": "from lab.data.source import Source",
        "flat.py": "import lab.data.source",
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("\n".join(line[12:] if line[:1] == " " else line for line in content.split("\n")))
    monkeypatch.syspath_prepend(tmp_path)

    def project_digest(file: str | None = None) -> str:
        if file is not None:
            with (tmp_path / file).open("a") as opened:
                opened.write("\n# edited\n")
        keys._sources.cache_clear()
        for module in [name for name in sys.modules if name.partition(".")[0] in ("lab", "flat")]:
            del sys.modules[module]
        return code_digest(importlib.import_module("lab.data.source").Source)

    return project_digest


@pytest.mark.parametrize("file", ["lab/types.py", "lab/training.py", "lab/data/new.py", "lab/__init__.py"])
def test_a_file_that_computes_no_sample_is_not_part_of_the_code(project: Callable[..., str], file: str) -> None:
    expected = project()
    assert project(file) == expected


@pytest.mark.parametrize(
    "file",
    [
        *("lab/data/source.py", "lab/data/base.py", "lab/data/crop.py", "lab/data/deep/__init__.py"),
        *("lab/data/deep/sides.py", "lab/colours.py", "flat.py"),
    ],
)
def test_files_that_are_imported_directly_or_not_are_part_of_the_code(project: Callable[..., str], file: str) -> None:
    expected = project()
    assert project() == expected
    assert project(file) != expected


def test_the_code_of_libraries_is_known_by_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    keys._sources.cache_clear()
    read_bytes = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda file: read.append(file) or read_bytes(file))
    network_digest(nn.Sequential(backbone().network, nn.MultiheadAttention(4, 2)))
    code_digest(nn.Linear, Path, cache)
    assert read == []
    network_digest(attention())
    assert Path(__file__) in read


def test_classes_of_one_file_have_different_digests() -> None:
    assert code_digest(Scaled) != code_digest(Slotted)
    assert code_digest(nn.ReLU) != code_digest(nn.GELU)


CELL = """
from torch import nn
def helper(x):
    return x * {helper}
CONSTANT = {constant}
class Made(nn.Module):
    factor = {attribute}
    @property
    def half(self):
        return {property}
    def forward(self, x):
        return [helper(x) * CONSTANT for _ in range({code})]
"""


@pytest.mark.parametrize("changed", ["helper", "constant", "attribute", "property", "code", None])
def test_code_of_a_notebook_counts(changed: str | None) -> None:
    digests = set()
    for number in (2, 3):
        numbers = {**dict.fromkeys(("helper", "constant", "attribute", "property", "code"), 1)}
        names: dict[str, Any] = {"__name__": "nowhere"}
        exec(CELL.format(**(numbers | ({changed: number} if changed else {}))), names)
        digests.add((network_digest(names["Made"]()), code_digest(names["Made"])))
    assert len(digests) == (2 if changed else 1)
