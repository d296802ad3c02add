"""How far two processes are from each other, and from one process with the whole batch, after each epoch, as Markdown.

python scripts/ddp_drift.py                    # the table in docs/distributed.md
python scripts/ddp_drift.py --labels 7         # fewer samples a class
"""

import argparse
import logging
import os
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import BackboneFinetuning
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from thaw.config import build
from thaw.config.command import CONF
from thaw.config.resume import open_run
from thaw.models.backbone import Backbone
from thaw.types import ImageSpec

EPOCHS = 5
"""One for each phase of chain_thaw: the head, each of three stages alone, then everything."""
QUIET: dict[str, Any] = {"enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0}


def backbone(weights: None = None) -> Backbone:
    """Without BatchNorm and dropout, which see the samples of one process only."""
    stages: dict[str, nn.Module] = {
        "stem": nn.Sequential(nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU()),
        "layer1": nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1), nn.ReLU()),
        "layer2": nn.Sequential(nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    }
    return Backbone(stages, num_features=16, input_spec=ImageSpec(8, 1, (0.3,), (0.35,)))


class Weights(Callback):
    """Writes those of every process after each epoch."""

    def __init__(self, folder: Path):
        self.folder = folder

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        weights = torch.cat([parameter.detach().flatten() for parameter in pl_module.parameters()])
        torch.save(weights, self.folder / f"{trainer.global_rank}_{trainer.current_epoch}.pt")


class Plain(LightningModule):
    """What Lightning's BackboneFinetuning wants: a `backbone`, and the rest."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.head = nn.Sequential(*backbone().stages.values()), nn.Linear(16, 10)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return cross_entropy(self.head(self.backbone(batch[0])), batch[1])

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW([p for p in self.parameters() if p.requires_grad], lr=3e-3)


def train_thaw(folder: Path, processes: int, labels: int) -> None:
    choices = (
        "backbone._target_=__main__.backbone",
        "backbone.weights=null",
        f"data.labels_per_class={labels}",
        "data.global_batch_size=64",
        "freezing=chain_thaw",
        "freezing.epochs_per_stage=1",
        "trainer.accelerator=cpu",
        f"trainer.devices={processes}",
        "+trainer.strategy=" + ("ddp_spawn" if processes > 1 else "auto"),
        "+trainer.enable_checkpointing=false",
        "logger=none",
        f"run_folder={folder}/run",
        *(f"+trainer.{key}={value}" for key, value in QUIET.items() if key != "num_sanity_val_steps"),
    )
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg, run = open_run(compose("train", list(choices)))
    cfg.callbacks = {}  # no early stopping
    torch.manual_seed(0)
    data = build.data(cfg)
    made = build.backbone(cfg)
    data.use_input_spec(made.input_spec)
    network = build.network(cfg, made, data.num_classes)
    plan = build.plan(cfg, network)
    run.begin(cfg, data)
    trainer = build.trainer(cfg, plan, run)
    trainer.callbacks.append(Weights(folder))  # type: ignore[attr-defined]
    trainer.fit(build.classifier(cfg, data, network, plan), data)


def train_lightning(folder: Path, labels: int) -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", [f"data.labels_per_class={labels}"])
    torch.manual_seed(0)
    data = build.data(cfg)
    data.use_input_spec(backbone().input_spec)
    inputs = data.dataset().inputs[data.train_indices]  # type: ignore[attr-defined]
    samples = TensorDataset(inputs, torch.from_numpy(data.targets[data.train_indices]))
    trainer = Trainer(
        accelerator="cpu",
        devices=2,
        strategy="ddp_spawn",
        max_epochs=EPOCHS,
        callbacks=[BackboneFinetuning(unfreeze_backbone_at_epoch=1, backbone_initial_lr=1e-3), Weights(folder)],
        logger=False,
        enable_checkpointing=False,
        **QUIET,
    )
    trainer.fit(Plain(), DataLoader(samples, batch_size=32, shuffle=True))


def farthest(one: Path, other: Path) -> list[float]:
    """The largest difference of two weights, of each epoch. `one`, `other`: files without `_<epoch>.pt`."""
    pairs = [
        [torch.load(f"{which}_{epoch}.pt", weights_only=True) for which in (one, other)] for epoch in range(EPOCHS)
    ]
    return [float((a - b).abs().max()) for a, b in pairs]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=int, default=50, help="of each class")
    labels = parser.parse_args().labels
    for name in ("lightning.pytorch", "lightning.fabric", "thaw"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore")
    os.environ["PYTHONWARNINGS"] = "ignore"  # of the processes, too

    started = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        one, two, lightning = folders = [Path(temporary) / name for name in ("one", "two", "lightning")]
        for folder in folders:
            folder.mkdir()
        train_thaw(one, 1, labels)
        train_thaw(two, 2, labels)
        train_lightning(lightning, labels)
        rows = {
            "thaw, between the processes": farthest(two / "0", two / "1"),
            "thaw, to one process with the same global batch": farthest(two / "0", one / "0"),
            "Lightning's BackboneFinetuning, between the processes": farthest(lightning / "0", lightning / "1"),
        }
    print("| largest difference of a weight after epoch | " + " | ".join(map(str, range(EPOCHS))) + " |")
    print("|---" * (1 + EPOCHS) + "|")
    for name, values in rows.items():
        print(f"| {name} | " + " | ".join(f"{value:.1e}" if value else "0" for value in values) + " |")
    print(f"\n{time.monotonic() - started:.0f} s, {Path(__file__).name} --labels {labels}")


if __name__ == "__main__":
    main()
