"""The callback that decides when pictures of a run are made, and hands them to its loggers.

N: samples of a split, C: classes or quantities.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

from thaw.data.pairs import as_one
from thaw.distributed.sharded import is_sharded
from thaw.finetuning.table import stage_tree
from thaw.models.network import Network
from thaw.reporting.harmless import harmless
from thaw.reporting.kinds import results_of
from thaw.reporting.pictures.images import image_grid, views_grid
from thaw.reporting.results import Results
from thaw.reporting.sinks import Sink, sinks
from thaw.runs.files import CONFIG_FILE
from thaw.runs.outputs import latest_outputs
from thaw.runs.secrets import masked_yaml
from thaw.signatures import only_accepted
from thaw.training.module import FineTuningModule
from thaw.types import BatchRequest, ImageSpec

BINS = 64
"""Bins of a histogram."""
VIEWS = 4
"""Augmented views that are shown of each image."""


class Pictures(Callback):
    """Shows how a run goes on, in every logger: at the end of each phase, and of every n-th epoch if that is set.

    At the start, once: the stages as a graph, the configuration, warnings about the data, images as the network sees
    them beside augmented ones, and a histogram of the weights of each stage. At the end of each phase: `pictures`,
    samples with their true and predicted labels, the most confident mistakes, histograms of weights and gradients of
    what trains, and the size of an update beside the size of the weights. At the end of the run, with the best weights:
    `pictures` and samples of test, or of validation if there is no test.

    Nothing happens in a step, except in the last one of an epoch that is shown: gradients and weights that train are
    copied on the device. A phase that early stopping ends shows no gradients. What cannot be drawn only warns.

    Args:
        pictures: by name, a function that draws what it takes of `targets`, class indices (N,), 0 and 1 for each label
            or numbers (N, C); `probabilities`, of numbers `values`, (N, C); `class_names`, C of them. It returns a
            matplotlib figure.
        every_epochs: also show every n-th epoch; None: only the last one of each phase.
        samples: samples that are shown; 0: none.
        histograms: whether weights, gradients and updates are shown.
    """

    def __init__(
        self,
        pictures: Mapping[str, Callable[..., Figure] | None],
        every_epochs: int | None = None,
        samples: int = 16,
        histograms: bool = True,
    ):
        self.pictures = {name: picture for name, picture in pictures.items() if picture is not None}
        self.every_epochs, self.samples, self.histograms = every_epochs, samples, histograms
        self._sinks: list[Sink] = []
        self._gradients: dict[str, list[Tensor]] = {}
        self._before: dict[str, list[Tensor]] = {}
        self._ratios: dict[str, Tensor] = {}

    @harmless
    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Show what the run begins with; a resumed run has shown it already."""
        self._sinks = sinks(trainer) if trainer.is_global_zero else []
        self.histograms = self.histograms and not is_sharded(trainer.strategy)  # a process holds pieces of the weights
        if self._sinks and trainer.global_step == 0:
            self._show_start(trainer, pl_module)

    @harmless
    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Optimizer) -> None:
        """Copy gradients and weights in the last step of an epoch that is shown."""
        if self._sinks and self.histograms and trainer.is_last_batch and self._shows(trainer, pl_module):
            trained = trained_tensors(pl_module.network)
            self._gradients = {
                stage: [p.grad.clone() for p in own if p.grad is not None] for stage, own in trained.items()
            }
            self._before = {stage: [p.detach().clone() for p in own] for stage, own in trained.items()}

    @harmless
    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        """Compare the weights with their copies; the numbers are asked for only when they are shown."""
        if self._before:
            after = trained_tensors(pl_module.network)
            self._ratios = {stage: update_ratio(old, after[stage]) for stage, old in self._before.items()}
            self._before = {}

    @harmless
    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Show an epoch, if it is its turn. Before its metrics are logged, so that W&B puts both into one row."""
        training = trainer.state.fn == "fit" and not trainer.sanity_checking
        if self._sinks and training and self._shows(trainer, pl_module):
            if trainer.current_epoch + 1 < pl_module.plan.total_epochs:  # then the best weights are shown
                self._show_outputs(trainer, pl_module, "val")
            if self.histograms:
                self._show_histograms(trainer, pl_module)

    def on_train_epoch_end(self, *args: Any) -> None:
        """Drop copies that no validation has shown."""
        self._gradients, self._ratios = {}, {}

    @harmless
    def on_predict_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Show validation with the best weights, if there is no test."""
        if self._sinks and not len(trainer.datamodule.parts["test"]):
            self._show_outputs(trainer, pl_module, "val")

    @harmless
    def on_test_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Show the test."""
        if self._sinks:
            self._show_outputs(trainer, pl_module, "test")

    def _shows(self, trainer: Any, module: FineTuningModule) -> bool:
        """Whether the current epoch is shown."""
        epoch, plan = trainer.current_epoch, module.plan
        is_last = epoch + 1 == plan.total_epochs or plan.index(epoch) != plan.index(epoch + 1)
        return is_last or (self.every_epochs is not None and (epoch + 1) % self.every_epochs == 0)

    def _show_start(self, trainer: Any, module: FineTuningModule) -> None:
        data, network = trainer.datamodule, module.network
        tree = stage_tree(network, network.num_features, data.input_spec)
        module.train()  # which stage_tree ended
        configuration = Path(trainer.default_root_dir, CONFIG_FILE).read_text(encoding="utf-8")
        for sink in self._sinks:
            sink.network(stage_modules(network), tree)
            sink.text("data/report", data.report())
            sink.text("configuration/run", masked_yaml(configuration))
        if self.histograms:
            weights = {stage: list(own.values()) for stage, own in network.stage_parameters().items()}
            self._hand_histograms("weights", weights, 0)
        if self.samples and isinstance(data.input_spec, ImageSpec):
            indices = data.parts["train"][: min(self.samples, 8)].tolist()
            views: list[int | None] = [None, *range(VIEWS)] if data.augments else [None]
            shown = [data.dataset()[BatchRequest(indices, view)].inputs for view in views]
            originals = [np.asarray(data.image(index)) for index in indices]
            pictures = [[as_image(batch[row]) for batch in shown] for row in range(len(indices))]
            self._hand(
                "inputs/train",
                views_grid(originals, pictures, ["in evaluation", *(f"view {n}" for n in range(1, len(views)))]),
                0,
            )

    def _show_outputs(self, trainer: Any, module: FineTuningModule, split: str) -> None:
        outputs = latest_outputs(trainer).get(split)
        if outputs is None:
            return
        results = results_of(outputs, module.class_names, module.task.decision())
        facts, step = results.facts(), last_step(trainer)
        for name, picture in self.pictures.items():
            self._hand(f"{name}/{split}", picture(**only_accepted(picture, facts)), step)
        if not self.samples:
            return
        spread = np.linspace(0, results.total - 1, min(self.samples, results.total)).astype(int)
        self._show_samples(trainer, f"predictions/{split}", results, spread)
        wrong = results.worst()[: self.samples]
        if len(wrong):
            self._show_samples(trainer, f"mistakes/{split}", results, wrong)

    def _show_samples(self, trainer: Any, name: str, results: Results[Any], rows: NDArray[np.integer]) -> None:
        """Hand out some samples, by their rows in the outputs: images in a grid, texts in a table."""
        data, step = trainer.datamodule, last_step(trainer)
        indices = results.outputs.indices[rows].tolist()
        answers = [results.answer(row) for row in rows.tolist()]
        if data.facts.texts is not None:
            texts = [as_one(data.facts.texts[index]) for index in indices]
            table = [
                [text, answer.true, answer.predicted, round(answer.measured, 4)]
                for text, answer in zip(texts, answers, strict=True)
            ]
            for sink in self._sinks:
                sink.table(name, ["text", "true", "predicted", results.measured], table, step)
            return
        captions = [f"true {answer.true}\npredicted {answer.predicted} ({answer.text})" for answer in answers]
        correct = None if answers[0].is_right is None else [bool(answer.is_right) for answer in answers]
        images = [np.asarray(data.image(index)) for index in indices]
        self._hand(name, image_grid(images, captions, correct), step)

    def _show_histograms(self, trainer: Any, module: FineTuningModule) -> None:
        step = last_step(trainer)
        self._hand_histograms("weights", trained_tensors(module.network), step)
        self._hand_histograms("gradients", self._gradients, step)
        ratios = {f"update_ratio/{stage}": float(ratio) for stage, ratio in self._ratios.items()}
        for logger in trainer.loggers if ratios else ():
            logger.log_metrics(ratios, step)

    def _hand(self, name: str, figure: Figure, step: int) -> None:
        for sink in self._sinks:
            sink.figure(name, figure, step)

    def _hand_histograms(self, name: str, tensors: Mapping[str, Sequence[Tensor]], step: int) -> None:
        values = {stage: histogram(own) for stage, own in tensors.items() if own}
        for sink in self._sinks if values else ():
            sink.histograms(name, values, step)


def last_step(trainer: Any) -> int:
    """Number of the last optimizer step, as for metrics: a run that resumes after it does not drop what it showed."""
    return max(trainer.global_step - 1, 0)


def trained_tensors(network: Network) -> dict[str, list[Parameter]]:
    """Parameters by stage that train now; stages without any are left out."""
    stages = network.stage_parameters().items()
    trained = {stage: [p for p in own.values() if p.requires_grad] for stage, own in stages}
    return {stage: own for stage, own in trained.items() if own}


def update_ratio(before: Sequence[Tensor], after: Sequence[Tensor]) -> Tensor:
    """Norm of the change of some parameters, divided by the norm that they had; a scalar. About 1e-3 is healthy."""
    change = torch.stack([(new.detach() - old).norm() for old, new in zip(before, after, strict=True)]).norm()
    return change / torch.stack([old.norm() for old in before]).norm()


def histogram(tensors: Sequence[Tensor]) -> tuple[NDArray[np.integer], NDArray[np.floating]]:
    """Counts and edges of all finite numbers in some tensors."""
    numbers = torch.cat([tensor.detach().float().flatten() for tensor in tensors]).cpu().double().numpy()
    return np.histogram(numbers[np.isfinite(numbers)], bins=BINS)


def stage_modules(network: Network) -> dict[str, list[str]]:
    """By stage, its innermost modules as `path: Conv2d(...)`, in order."""
    lines: dict[str, list[str]] = {}
    for stage, content in network.stages.items():
        found = []
        for outer in content.modules:
            for path, module in network.get_submodule(outer).named_modules(prefix=outer):
                if not any(True for _ in module.children()):
                    found.append(f"{path.removeprefix('backbone.')}: {module}")
        lines[stage] = found
    return lines


def as_image(tensor: Tensor) -> NDArray[np.uint8]:
    """An image (C, H, W) of bytes as matplotlib takes it: (H, W), or (H, W, 3)."""
    image = tensor.numpy()
    return image[0] if len(image) == 1 else image.transpose(1, 2, 0)
