"""Measure how far weights drift apart: between two processes, and between them and one process with the whole batch.

    python scripts/ddp_drift.py                    # the table in docs/distributed.md
    python scripts/ddp_drift.py --labels 7         # fewer samples per class

Prints the largest difference of a weight after each epoch as a Markdown table.
"""

import argparse
import logging
import os
import tempfile
import time
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from configuration import QUIET, configuration
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import BackboneFinetuning
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from thaw.config.assemble import split_data, start
from thaw.models.backbone import Backbone
from thaw.models.stages import child_stages
from thaw.types import BatchRequest, ImageSpec

EPOCHS = 5
"""One for each phase of chain_thaw: the head, each of three stages alone, then everything."""


def backbone(weights: None = None) -> Backbone:
    """Build a network without BatchNorm and dropout, which would differ between the processes."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        stem=nn.Sequential(nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU()),
        layer1=nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1), nn.ReLU()),
        layer2=nn.Sequential(nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    )
    network = nn.Sequential(layers)
    return Backbone(network, child_stages(network), num_features=16, input_spec=ImageSpec(8, 1, (0.3,), (0.35,)))


class WeightsWriter(Callback):
    """Writes the weights of every process to `folder` after each epoch."""

    def __init__(self, folder: Path):
        self.folder = folder

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write one file: all weights as one vector."""
        weights = torch.cat([parameter.detach().flatten() for parameter in pl_module.parameters()])
        torch.save(weights, self.folder / f"{trainer.global_rank}_{trainer.current_epoch}.pt")


class PlainModule(LightningModule):
    """The same network for Lightning's BackboneFinetuning, which expects an attribute `backbone`."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.head = backbone().network, nn.Linear(16, 10)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the mean loss of one batch."""
        return cross_entropy(self.head(self.backbone(batch[0])), batch[1])

    def configure_optimizers(self) -> Any:
        """Return an optimizer of what is trainable now; the callback adds the backbone later."""
        return torch.optim.AdamW([p for p in self.parameters() if p.requires_grad], lr=3e-3)


def train_thaw(folder: Path, processes: int, labels: int) -> None:
    """Train with thaw in one or two processes."""
    cfg = configuration(
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
        *QUIET,
    )
    cfg.callbacks = {}  # no checkpoints, no early stopping
    _, parts, trainer = start(cfg)
    trainer.callbacks.append(WeightsWriter(folder))  # type: ignore[attr-defined]
    trainer.fit(parts.module, parts.loaders())


def train_lightning(folder: Path, labels: int) -> None:
    """Train with Lightning's BackboneFinetuning in two processes."""
    torch.manual_seed(0)
    data = split_data(configuration(f"data.labels_per_class={labels}"))
    data.use_input_spec(backbone().input_spec)
    batch = data.on_after_batch_transfer(data.dataset()[BatchRequest(data.train_indices.tolist(), None)], 0)
    trainer = Trainer(
        accelerator="cpu",
        devices=2,
        strategy="ddp_spawn",
        max_epochs=EPOCHS,
        callbacks=[BackboneFinetuning(unfreeze_backbone_at_epoch=1, backbone_initial_lr=1e-3), WeightsWriter(folder)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    samples = TensorDataset(batch.inputs, batch.target)
    trainer.fit(PlainModule(), DataLoader(samples, batch_size=32, shuffle=True))


def largest_differences(first: Path, second: Path) -> list[float]:
    """Return the largest difference of a weight after each epoch. The paths lack the ending `_<epoch>.pt`."""
    pairs = [
        [torch.load(f"{path}_{epoch}.pt", weights_only=True) for path in (first, second)] for epoch in range(EPOCHS)
    ]
    return [float((a - b).abs().max()) for a, b in pairs]


def main() -> None:
    """Train three times and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=int, default=50, help="training samples per class")
    labels = parser.parse_args().labels
    for name in ("lightning.pytorch", "lightning.fabric", "thaw"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore")
    os.environ["PYTHONWARNINGS"] = "ignore"  # for the started processes, too

    started = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        one, two, lightning = folders = [Path(temporary) / name for name in ("one", "two", "lightning")]
        for folder in folders:
            folder.mkdir()
        train_thaw(one, 1, labels)
        train_thaw(two, 2, labels)
        train_lightning(lightning, labels)
        rows = {
            "thaw, between the processes": largest_differences(two / "0", two / "1"),
            "thaw, to one process with the same global batch": largest_differences(two / "0", one / "0"),
            "Lightning's BackboneFinetuning, between the processes": largest_differences(
                lightning / "0", lightning / "1"
            ),
        }
    print("| largest difference of a weight after epoch | " + " | ".join(map(str, range(EPOCHS))) + " |")
    print("|---" * (1 + EPOCHS) + "|")
    for name, values in rows.items():
        print(f"| {name} | " + " | ".join(f"{value:.1e}" if value else "0" for value in values) + " |")
    print(f"\n{time.monotonic() - started:.0f} s, {Path(__file__).name} --labels {labels}")


if __name__ == "__main__":
    main()
