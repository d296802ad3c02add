"""How others fine-tune: each of the study's peers as its own documentation does it. See recipe.py.

Every peer gets the split, the labelled samples and the pretrained network of a thaw run of the same configuration. It
measures the validation split after each epoch, and its result is that of the best epoch, as thaw's is.

N: samples, C: classes, D: features.
"""

import copy
import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
import transformers
from contenders import (
    Scores,
    backbone_finetuning,
    encoded,
    fastai_learner,
    hugging_face_trainer,
    outputs,
    probe_then_full,
    tf_idf_classifier,
)
from lightning import Callback, seed_everything
from numpy.typing import NDArray
from omegaconf import DictConfig
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset
from torchvision.datasets.folder import default_loader
from torchvision.transforms import v2

from thaw.config import build
from thaw.config.assemble import split_data
from thaw.data.image_module import ImageDataModule
from thaw.data.module import DataModule
from thaw.data.text_module import TextDataModule
from thaw.data.transforms import evaluation_transform, training_transform
from thaw.models.heads import linear
from thaw.models.network import Network
from thaw.types import ImageSpec

CURVE_FILE = "curve.json"
LEAST_PROBABILITY = 1e-6
"""Probabilities of classifiers that say 0 are raised to this, so that their log loss is finite."""


class Result(NamedTuple):
    """What one run came to."""

    curve: list[tuple[float, float]]
    """After each epoch: seconds since the start, and accuracy on the validation split."""
    seconds: float
    """From the start of reading the samples to the end of training."""
    loader_processes: int
    """Largest number of loader processes that lived at the end of an epoch."""
    scores: dict[str, Scores]
    """By split: val, and test if there is one."""


class Record:
    """Times a run, which begins when the record is made, and keeps the weights of its best epoch."""

    def __init__(self) -> None:
        self.begin = time.perf_counter()
        self.curve: list[tuple[float, float]] = []
        self.weights: dict[str, Any] = {}
        self.loader_processes = 0

    def epoch(self, accuracy: float, network: nn.Module | None = None) -> None:
        """Note the end of an epoch, with the accuracy on the validation split."""
        if network is not None and accuracy > max((known for _, known in self.curve), default=-1.0):
            self.weights = copy.deepcopy(network.state_dict())
        self.curve.append((time.perf_counter() - self.begin, accuracy))
        self.loader_processes = max(self.loader_processes, len(multiprocessing.active_children()))

    def result(self, problem: "Problem", score: Callable[[str], Scores], network: nn.Module | None = None) -> Result:
        """End the run: stop the clock, load the best weights into `network`, and score each split."""
        seconds, curve = time.perf_counter() - self.begin, [*self.curve]  # scoring may count as another epoch
        if network is not None:
            network.load_state_dict(self.weights)
        return Result(curve, seconds, self.loader_processes, {split: score(split) for split in problem.measured})


class Problem:
    """What all contenders of a cell have in common.

    Args:
        cfg: configuration of the thaw run that the peers are compared with.
        epochs: number of epochs with a frozen backbone, and of those that train everything.
        rates: learning rate of a new head on a frozen backbone, and of everything.
    """

    def __init__(self, cfg: DictConfig, epochs: tuple[int, int], rates: tuple[float, float]):
        self.cfg, self.epochs, self.rates, self.seed = cfg, epochs, rates, int(cfg.seed)
        self.spec = build.backbone(cfg).input_spec  # also imports the library of the network, before any clock starts
        self.data: DataModule = split_data(cfg)

    @property
    def measured(self) -> list[str]:
        """The splits that are scored."""
        return ["val", "test"] if len(self.data.parts["test"]) else ["val"]

    def network(self) -> Network:
        """The pretrained backbone with a new linear head."""
        backbone = build.backbone(self.cfg)
        return Network(backbone, linear(backbone.num_features, self.data.num_classes))

    def loader(self, split: str, training: bool = False) -> Any:
        """Batches of inputs and class indices; `training`: in random order, images augmented."""
        indices, workers = self.data.parts[split], self.data.num_workers
        shared: Any = {"num_workers": workers, "persistent_workers": workers > 0, "shuffle": training}
        if isinstance(self.data, TextDataModule):
            tokenizer = transformers.AutoTokenizer.from_pretrained(self.cfg.backbone.name, trust_remote_code=False)
            samples: Any = encoded(self.data, indices, tokenizer)
            shared["collate_fn"] = Collate(tokenizer)
        else:
            samples = Images(self.data, indices, image_transform(self.data, self.spec, training))
        return DataLoader(samples, self.data.batch_size, **shared)


# Samples.


class Images(Dataset[tuple[Any, int]]):
    """Images and their class indices, read as torchvision's ImageFolder does."""

    def __init__(self, data: DataModule, indices: NDArray[np.int64], transform: Callable[[Any], Any]):
        self.source, self.indices = data.source, indices.tolist()
        self.targets, self.transform = data.targets[indices].tolist(), transform

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, number: int) -> tuple[Any, int]:
        return self.transform(read_image(self.source, self.indices[number])), self.targets[number]


def read_image(source: Any, index: int) -> Image.Image:
    """An image of a source of files, or of one that holds arrays."""
    return default_loader(source.files[index]) if hasattr(source, "files") else Image.fromarray(source.images[index])


def image_transform(data: DataModule, spec: Any, augmented: bool) -> Callable[[Any], Tensor]:
    """From an image to what the network takes, as thaw's transforms do it; `augmented`: a random view."""
    assert isinstance(data, ImageDataModule)
    assert isinstance(spec, ImageSpec)
    augment = training_transform(spec, data.augment, data.flip_probability)
    to_float, normalise = v2.ToDtype(torch.float32, scale=True), v2.Normalize(spec.mean, spec.std)
    return v2.Compose([augment if augmented else evaluation_transform(spec), to_float, normalise])


class Collate:
    """Turns encoded texts into a batch: `input_ids` and `attention_mask`, both (B, T), and class indices (B,)."""

    def __init__(self, tokenizer: Any):
        self.pad = transformers.DataCollatorWithPadding(tokenizer)

    def __call__(self, rows: list[dict[str, Any]]) -> tuple[dict[str, Tensor], Tensor]:
        """Pad to the longest text."""
        batch = dict(self.pad(rows))
        return batch, batch.pop("labels")


# Loops.


def hand(problem: Problem) -> Result:
    """Train with a loop of plain PyTorch: the head, then everything."""
    torch.manual_seed(problem.seed)
    record = Record()
    network, train, val = problem.network(), problem.loader("train", training=True), problem.loader("val")

    def epoch_ends() -> None:
        record.epoch(outputs(network.eval(), val).accuracy, network)

    probe_then_full(network, train, problem.epochs, problem.rates, epoch_ends)
    return record.result(problem, lambda split: outputs(network.eval(), problem.loader(split)), network)


def lightning(problem: Problem) -> Result:
    """Train with Lightning's BackboneFinetuning."""
    seed_everything(problem.seed, verbose=False)
    record = Record()
    network, train, val = problem.network(), problem.loader("train", training=True), problem.loader("val")

    def epoch_ends(accuracy: float) -> None:
        record.epoch(accuracy, network)

    trainer, module = backbone_finetuning(network, problem.epochs, problem.rates, epoch_ends)
    trainer.fit(module, train, val)
    return record.result(problem, lambda split: outputs(network.eval(), problem.loader(split)), network)


def timm_recipe(problem: Problem) -> Result:
    """Train everything as timm's fine-tuning recipes do: AdamW, rates that fall with depth, cosine, label smoothing."""
    from timm.optim import create_optimizer_v2
    from timm.scheduler.cosine_lr import CosineLRScheduler

    torch.manual_seed(problem.seed)
    record = Record()
    network, train, val = problem.network(), problem.loader("train", training=True), problem.loader("val")
    model: Any = network.backbone
    if hasattr(model, "reset_classifier"):  # timm's own, which know their layers
        model.reset_classifier(problem.data.num_classes)
    else:
        model = network
        model.pretrained_cfg = {"classifier": "head."}  # all other parameters are put into groups of twelve
    optimizer = create_optimizer_v2(model, "adamw", lr=problem.rates[1], weight_decay=0.05, layer_decay=0.75)
    epochs = sum(problem.epochs)
    steps, warmup = epochs * len(train), len(train) if epochs > 1 else 0
    schedule = CosineLRScheduler(optimizer, steps, warmup_t=warmup, warmup_lr_init=1e-5, t_in_epochs=False)
    step = 0
    for _ in range(epochs):
        model.train()
        for inputs, labels in train:
            schedule.step_update(step)
            loss = cross_entropy(model(inputs), labels, label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
        record.epoch(outputs(model.eval(), val).accuracy, model)
    return record.result(problem, lambda split: outputs(model.eval(), problem.loader(split)), model)


# fastai.


def fastai_data(problem: Problem, item_transforms: Any, batch_transforms: Sequence[Any]) -> Any:
    """Make fastai's loaders of the training and validation samples."""
    from fastai.data.block import CategoryBlock, DataBlock
    from fastai.data.transforms import IndexSplitter, Normalize
    from fastai.vision.core import PILImage, PILImageBW
    from fastai.vision.data import ImageBlock

    data, spec = cast(Any, problem.data), cast(ImageSpec, problem.spec)
    train, val = data.parts["train"], data.parts["val"]
    block = DataBlock(
        (
            ImageBlock(PILImage if spec.channels == 3 else PILImageBW),
            CategoryBlock(vocab=list(range(data.num_classes))),
        ),
        get_x=lambda index: data.source.files[index] if hasattr(data.source, "files") else data.source.images[index],
        get_y=lambda index: int(data.targets[index]),
        splitter=IndexSplitter(list(range(len(train), len(train) + len(val)))),
        item_tfms=item_transforms,
        batch_tfms=[*batch_transforms, Normalize.from_stats(spec.mean, spec.std, cuda=False)],
    )
    # As by default it drops the last batch, where there is more than one.
    loading = {"num_workers": data.num_workers, "device": "cpu", "drop_last": len(train) > data.batch_size}
    return block.dataloaders([*train.tolist(), *val.tolist()], bs=data.batch_size, **loading)


def fine_tune(problem: Problem, record: Record, data: Any, network: nn.Module, head: nn.Module) -> Result:
    """Train with fastai's fine_tune."""
    learner = fastai_learner(data, network, head, lambda accuracy: record.epoch(accuracy, network))
    with learner.no_logging():
        learner.fine_tune(problem.epochs[1], freeze_epochs=problem.epochs[0])

    def score(split: str) -> Scores:
        batches = data.test_dl(problem.data.parts[split].tolist(), with_labels=True)
        return outputs(network.eval(), batches)

    return record.result(problem, score, network)


def fastai(problem: Problem) -> Result:
    """Train with fastai's fine_tune: its rates and schedule, thaw's augmentation and head."""
    from fastai.torch_core import set_seed
    from fastai.vision.augment import Flip, RandomResizedCrop, Resize

    set_seed(problem.seed)
    data, spec = cast(ImageDataModule, problem.data), cast(ImageSpec, problem.spec)
    record = Record()
    items = RandomResizedCrop(spec.size_px, min_scale=0.35) if data.augments else Resize(spec.size_px)
    loaders = fastai_data(problem, items, [Flip(data.flip_probability)] if data.augments else [])
    network = problem.network()
    return fine_tune(problem, record, loaders, network, network.head)


def fastai_defaults(problem: Problem) -> Result:
    """Train with fastai's fine_tune and all that is default there: augmentation, concat pooling, a head of two layers.

    Only images that thaw does not augment, the digits, are not flipped.
    """
    from fastai.torch_core import set_seed
    from fastai.vision.augment import Resize, aug_transforms
    from fastai.vision.learner import add_head, create_body

    set_seed(problem.seed)
    data, spec = cast(ImageDataModule, problem.data), cast(ImageSpec, problem.spec)
    record = Record()
    loaders = fastai_data(problem, Resize(spec.size_px), aug_transforms(do_flip=data.augments))
    network: Any = problem.network()
    body = network.backbone
    if isinstance(body, nn.Sequential):  # glyphs, which pools inside of its last stage
        body = nn.Sequential(*body[:-1], next(body[-1].children()))
    else:
        body = create_body(body, pretrained=False)
    network = add_head(body, network.num_features, data.num_classes)
    return fine_tune(problem, record, loaders, network, network[1])


# Texts.


def hugging_face(problem: Problem) -> Result:
    """Fine-tune everything with Hugging Face's Trainer."""
    record = Record()
    training = (problem.cfg.backbone.name, sum(problem.epochs), problem.rates[1], problem.seed)
    trainer, tokenizer = hugging_face_trainer(problem.data, *training, tempfile.mkdtemp(), record.epoch)
    trainer.train()  # ends with the best epoch's weights

    def score(split: str) -> Scores:
        output = trainer.predict(encoded(problem.data, problem.data.parts[split], tokenizer))
        return Scores(output.predictions, output.label_ids)

    return record.result(problem, score)


def tf_idf(problem: Problem) -> Result:
    """Logistic regression on TF-IDF, without the network."""
    data: Any = problem.data
    return fitted(problem, tf_idf_classifier(), Record(), lambda split: [data.texts[i] for i in data.parts[split]])


# Classifiers on frozen features.


def fitted(problem: Problem, classifier: Any, record: Record, inputs: Callable[[str], Any]) -> Result:
    """Fit a classifier of scikit-learn to the inputs of the training samples."""

    def score(split: str) -> Scores:
        probabilities = classifier.predict_proba(inputs(split))
        return Scores(np.log(np.maximum(probabilities, LEAST_PROBABILITY)), problem.data.targets[data.parts[split]])

    data = problem.data
    classifier.fit(inputs("train"), data.targets[data.train_indices])
    record.epoch(score("val").accuracy)
    return record.result(problem, score)


def on_features(problem: Problem, classifier: Any) -> Result:
    """Fit a classifier to features of the frozen network, of images without augmentation."""
    record = Record()
    network = problem.network().eval()
    return fitted(problem, classifier, record, lambda split: outputs(network.features, problem.loader(split)).logits)


def logistic(problem: Problem) -> Result:
    """Logistic regression on frozen features: for texts the simple form of SetFit's recipe."""
    return on_features(problem, LogisticRegression(max_iter=1000))


def nearest(problem: Problem) -> Result:
    """The nearest neighbours among frozen features, by angle."""
    neighbours = min(5, len(problem.data.train_indices))
    return on_features(problem, make_pipeline(Normalizer(), KNeighborsClassifier(neighbours)))


# thaw.


class Curve(Callback):
    """Writes validation accuracies with their times, and when training ended, into the run folder."""

    def __init__(self) -> None:
        self.epochs: list[tuple[float, float]] = []
        self.loader_processes = 0
        self.ended = False

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Note the accuracy of an epoch."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self.epochs.append((time.perf_counter(), float(trainer.callback_metrics["accuracy/val"])))
            self.loader_processes = max(self.loader_processes, len(multiprocessing.active_children()))

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Write the file when something else than training begins."""
        if stage != "fit" and not self.ended:
            self.ended = True
            content = {"epochs": self.epochs, "end": time.perf_counter(), "loader_processes": self.loader_processes}
            Path(trainer.default_root_dir, CURVE_FILE).write_text(json.dumps(content), encoding="utf-8")


def ours(cfg: DictConfig) -> Result:
    """Train as the train command does. `cfg` has the callback Curve."""
    import thaw.config.assemble
    import thaw.reporting.baselines
    import thaw.reporting.callback
    import thaw.reporting.write
    import thaw.runs.record  # noqa: F401  # all of these before the clock starts, as with the others
    from thaw.runs.files import CALIBRATION_FILE, OUTPUTS_FILE
    from thaw.runs.folder import RunFolder
    from thaw.runs.outputs import read_outputs
    from thaw.train import train

    build.backbone(cfg)  # imports the network's library
    begin = time.perf_counter()
    train(cfg)
    run = RunFolder(cfg.run_folder)
    times = json.loads((run.path / CURVE_FILE).read_text(encoding="utf-8"))
    scores = {}
    for split in ("val", "test"):
        if (found := read_outputs(run.path / OUTPUTS_FILE.format(split=split))) is not None:
            scores[split] = Scores(found.logits / run.json(CALIBRATION_FILE)["temperature"], found.targets)
    seconds = times["end"] - begin
    curve = [(moment - begin, accuracy) for moment, accuracy in times["epochs"]]
    if scores["val"].accuracy > max(accuracy for _, accuracy in curve) + 1e-6:  # by what follows the last epoch
        curve.append((seconds, scores["val"].accuracy))
    return Result(curve, seconds, times["loader_processes"], scores)
