"""A run with adapters, from training to every command that reads its folder."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig
from safetensors.torch import load_file

from tests.caching.whole_runs import NONE_STOPS, logged
from tests.test_texts import PLAN, choices, require_loads_in_transformers
from thaw.config.assemble import trained
from thaw.errors import UserError
from thaw.evaluate import evaluate
from thaw.export import export
from thaw.models.network import Network
from thaw.models.weights import read_checkpoint, read_weights
from thaw.train import train

Config = Callable[..., DictConfig]
LORA = ("adapter=lora", "adapter.rank=2", "adapter.alpha=4")
INPUTS = {
    "input_ids": torch.tensor([[5, 6, 7], [8, 9, 0]]),
    "attention_mask": torch.tensor([[1, 1, 1], [1, 1, 0]]),
}

pytest.importorskip("peft")


def network_of(run: Path) -> Network:
    return trained(str(run)).network.eval()


@pytest.mark.run
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # peft asks for it
def test_a_run_trains_adapters_alone_and_its_folder_serves_every_command(config: Config, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(config(*choices(tmp_path), *LORA, *PLAN, "backbone.pooling=last", "monitor.metric=loss/train"))
    before, after = load_file(tmp_path / "bert/model.safetensors"), read_weights(run / "weights.safetensors")
    own = {name.removeprefix("backbone.").replace(".base_layer.", "."): tensor for name, tensor in after.items()}
    kept = [name for name in before if name in own]
    assert len(kept) > 30
    assert all(torch.equal(own[name], before[name]) for name in kept), "pretrained weights stay in every phase"
    outer = [tensor for name, tensor in after.items() if ".lora_B." in name]
    assert len(outer) == 12
    assert all(tensor.any() for tensor in outer)
    first, second = json.loads((run / "phases.json").read_text())
    assert first["trains"] == "head"
    assert second["trains"] == "layer0 (416 parameters), layer1 (416 parameters), head"
    assert read_checkpoint(run / "checkpoints/last.ckpt")["epoch"] == 2
    # Without the pretrained network at hand: measured again, and resumed, to the last bit.
    (tmp_path / "bert").rename(tmp_path / "away")
    metrics = json.loads((run / "metrics.json").read_text())["metrics"]
    again = evaluate(config(f"run={run}", name="evaluate"))
    assert again == {name: value for name, value in metrics.items() if name.endswith("/test")}
    lines = (run / "metrics.csv").read_text()
    torch.manual_seed(99)
    train(config(f"resume={next((run / 'checkpoints').glob('best-*epoch000.ckpt'))}"))
    resumed = read_weights(run / "weights.safetensors")
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in after.items())
    assert (run / "metrics.csv").read_text() == lines
    # Exported without adapters, as transformers knows the network.
    network = network_of(run)
    logits = network(INPUTS).detach()
    file = export(config(f"run={run}", "format=safetensors", "samples=8", name="export"))
    require_loads_in_transformers(file, network)
    # What was trained, apart: peft puts it into the pretrained network.
    library, peft = __import__("transformers"), __import__("peft")
    loaded = peft.PeftModel.from_pretrained(library.AutoModel.from_pretrained(tmp_path / "away"), run / "adapter")
    bias, weight = (tensor for _, tensor in sorted(load_file(run / "adapter/head.safetensors").items()))
    with torch.no_grad():
        states = loaded.eval()(**INPUTS).last_hidden_state[torch.arange(2), torch.tensor([2, 1])]
    assert torch.allclose(states @ weight.T + bias, logits, atol=1e-5)
    assert str(tmp_path) not in (run / "adapter/adapter_config.json").read_text()


def test_the_cache_changes_no_number(config: Config, tmp_path: Path) -> None:
    same = [*choices(tmp_path), *LORA, *NONE_STOPS, "freezing=gradual", "freezing.epochs_per_stage=1"]
    train(config(*same, f"run_folder={tmp_path}/with"))
    train(config(*same, "caching=off", f"run_folder={tmp_path}/without"))
    assert logged(tmp_path / "with") == pytest.approx(logged(tmp_path / "without"), abs=1e-5)
    phases = json.loads((tmp_path / "with/phases.json").read_text())
    assert [len(phase["trains"].split(", ")) for phase in phases] == [1, 2, 3], "of the embeddings nothing trains"


@pytest.mark.parametrize("adapter", ["none", "lora"])
def test_a_new_run_starts_from_the_merged_weights(adapter: str, config: Config, tmp_path: Path) -> None:
    typed = choices(tmp_path)
    train(config(*typed, *LORA, "freezing=full", "freezing.epochs=2"))
    new = (f"init_from={tmp_path}/run", f"adapter={adapter}", f"run_folder={tmp_path}/next")
    train(config(*typed, *new, "freezing=head_only", "freezing.epochs=1"))
    old, features = network_of(tmp_path / "run"), network_of(tmp_path / "next").features(INPUTS)
    assert torch.allclose(features, old.features(INPUTS), atol=1e-5)
    names = read_weights(tmp_path / "next/weights.safetensors")
    assert any("lora" in name for name in names) == (adapter == "lora")


def test_there_must_be_something_pretrained(config: Config, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"pretrained weights never train, and backbone.weights=none has none"):
        train(config(*choices(tmp_path), *LORA, "backbone.weights=none"))
