import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tests.malice import save_malicious
from thaw.errors import UserError
from thaw.models.weights import load_weights, read_weights, require_network


def network(classes: int = 3, width: int = 4) -> nn.ModuleDict:
    return nn.ModuleDict({"backbone": nn.Linear(2, width), "head": nn.Linear(width, classes)})


def saved(folder: Path, source: nn.ModuleDict) -> Path:
    file = folder / "weights.safetensors"
    save_file(source.state_dict(), file)
    return file


def test_a_head_for_other_classes_is_left_and_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source, target = network(classes=3), network(classes=5)
    head = target["head"].weight.clone()
    with caplog.at_level(logging.INFO):
        report = load_weights(target, saved(tmp_path, source), optional="head.")
    assert report.matched == ("backbone.bias", "backbone.weight")
    assert set(report.missing) == set(report.surplus) == {"head.weight", "head.bias"}
    assert torch.equal(target["backbone"].weight, source["backbone"].weight)
    assert torch.equal(target["head"].weight, head)
    assert "2 tensors matched, 2 missing (head.weight, head.bias), 2 surplus" in caplog.text


def test_another_network_is_refused_and_nothing_is_loaded(tmp_path: Path) -> None:
    target = network(width=8)
    before = target["backbone"].weight.clone()
    file = saved(tmp_path, network(width=4))
    with pytest.raises(
        UserError, match=r"another network: 1 of 4 tensors match(.|\n)*missing in it: backbone.weight \(8, 2\)"
    ):
        load_weights(target, file)
    assert torch.equal(target["backbone"].weight, before)
    with pytest.raises(UserError, match=r"backbone.weight \(4, 2\) instead of \(8, 2\)"):
        require_network(target, file)
    require_network(network(width=4), file)


@pytest.mark.parametrize("wrap", [dict, lambda s: {"state_dict": s, "epoch": 3}])
@pytest.mark.parametrize("prefix", ["", "module.", "network.", "module.network."])
def test_wrappings_of_other_tools_are_taken_off(tmp_path: Path, prefix: str, wrap: type) -> None:
    source = network()
    torch.save(wrap({prefix + name: value for name, value in source.state_dict().items()}), tmp_path / "a.pth")
    assert read_weights(tmp_path / "a.pth").keys() == source.state_dict().keys()


def test_a_malicious_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    proof = save_malicious(tmp_path / "evil.pth")
    with pytest.raises(UserError, match="could run code that somebody else wrote"):
        read_weights(tmp_path / "evil.pth")
    assert not proof.exists()
    torch.load(tmp_path / "evil.pth", weights_only=False)
    assert proof.exists(), "it would have been run"


@pytest.mark.parametrize("name", ["cut.pth", "cut.safetensors"])
def test_broken_and_absent_files_are_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"PK\x03\x04 and then nothing")
    with pytest.raises(UserError, match=name):
        read_weights(tmp_path / name)
    with pytest.raises(UserError, match="absent"):
        read_weights(tmp_path / f"absent_{name}")


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    torch.save(torch.zeros(3), tmp_path / "tensor.pt")
    with pytest.raises(UserError, match=r"holds a Tensor.*save model.state_dict\(\)"):
        read_weights(tmp_path / "tensor.pt")
