"""Compare thaw with a hand-written loop, Lightning's BackboneFinetuning and fastai's fine_tune on images.

    python scripts/benchmark_images.py --data <folder with train/ and val/> --weights <file>

All contenders get the same images, network, weights, epochs (first the head alone, then everything), batch size,
augmentation and loader processes. Each runs in a process of its own, and they take turns. The table shows the median
seconds over the seeds and the mean accuracy on val/. The time of an epoch includes its validation. fastai needs the
extra `bench`.
"""

import argparse
import json
import tempfile
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, cast

from contenders import (
    Clock,
    Outcome,
    accuracies,
    backbone_finetuning,
    cell,
    fastai_learner,
    fit,
    in_own_process,
    median,
    outputs,
    probe_then_full,
)

CONTENDERS = ("thaw", "hand", "lightning", "fastai")
RATES = (3e-3, 1e-3)
"""Rate of the head on a frozen backbone, and of everything, for hand and lightning."""


def main() -> None:
    """Run all contenders and print the table; with `--only`, run one and print its outcome as JSON."""
    choices = parser(CONTENDERS, __doc__).parse_args()
    if choices.only is not None:
        print(json.dumps(globals()[choices.only](choices)))
        return
    results: dict[str, list[Outcome]] = {name: [] for name in choices.contenders}
    for seed in range(choices.seeds):
        for name in choices.contenders:
            with tempfile.TemporaryDirectory() as folder:  # a new one, so that no run finds a filled cache
                outcome = in_own_process(__file__, name, seed, {"THAW_CACHE": f"{folder}/cache", "TMPDIR": folder})
            if outcome is not None:
                results[name].append(outcome)
    print(table(results))


def parser(contenders: Sequence[str], description: str | None) -> argparse.ArgumentParser:
    """Make the command line that both benchmarks of images share."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="a folder with train/<class>/* and val/<class>/*")
    parser.add_argument(
        "--weights", required=True, help="file of the network without its head, with the library's names"
    )
    parser.add_argument("--library", choices=("timm", "torchvision"), default="timm")
    parser.add_argument("--name", default="mobilenetv2_035")
    parser.add_argument(
        "--options", type=json.loads, default={"pad_type": "same"}, help="JSON, for the library's builder"
    )
    parser.add_argument("--mean", type=float, default=0.5)
    parser.add_argument("--std", type=float, default=0.5)
    parser.add_argument("--size-px", type=int, default=96)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--frozen-epochs", type=int, default=10)
    parser.add_argument("--full-epochs", type=int, default=5, help="0 trains the head alone")
    parser.add_argument("--seeds", type=int, default=3, help="number of runs per contender")
    parser.add_argument("--contenders", nargs="+", choices=contenders, default=contenders)
    parser.add_argument("--thaw", nargs="*", default=[], help="more overrides for thaw")
    # The two options with which a benchmark starts itself.
    parser.add_argument("--only", choices=contenders, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    return parser


def table(results: dict[str, list[Outcome]]) -> str:
    """Lay out the outcomes as a Markdown table, one row per contender."""
    lines = ["| | s / frozen epoch | s / full epoch | total s | val accuracy |", "|---|---|---|---|---|"]
    for name, runs in results.items():
        if runs:
            seconds = [cell(median(runs, key), digits) for key, digits in (("frozen", 2), ("full", 2), ("total", 1))]
            lines.append(f"| {name} | {' | '.join(seconds)} | {accuracies(runs)} |")
    return "\n".join(lines)


def overrides(choices: argparse.Namespace) -> list[str]:
    """Overrides that make thaw train what the others train."""
    three = f"[{','.join(['{}'] * 3)}]"
    plan = [
        f"freezing.probe_epochs={choices.frozen_epochs}",
        f"freezing.epochs={choices.frozen_epochs + choices.full_epochs}",
    ]
    if not choices.full_epochs:
        plan = ["freezing=head_only", f"freezing.epochs={choices.frozen_epochs}"]
    return [
        f"backbone={choices.library}",
        f"backbone.name={choices.name}",
        f"backbone.weights={choices.weights}",
        f"backbone.options={json.dumps(choices.options).replace(chr(34), '')}",
        f"backbone.image_size_px={choices.size_px}",
        "backbone.mean=" + three.format(*[choices.mean] * 3),
        "backbone.std=" + three.format(*[choices.std] * 3),
        "data=image_folder",
        f"data.root={choices.data}",
        f"data.batch_size={choices.batch_size}",
        f"data.num_workers={choices.workers}",
        "data.test_fraction=0",
        *plan,
        "callbacks.early_stopping=null",  # for the same number of epochs as the others
        f"seed={choices.seed}",
        f"run_folder={tempfile.mkdtemp()}/run",
        *choices.thaw,
    ]


def thaw(choices: argparse.Namespace) -> Outcome:
    """Train with thaw: as its train command does, but without the final test."""
    from configuration import configuration

    from thaw.imports import library_imports

    with library_imports():  # as the train command does
        from thaw.config.assemble import start
        from thaw.runs.record import load_best

    clock = Clock(choices.frozen_epochs, choices.full_epochs)
    _, parts, trainer = start(configuration(*overrides(choices)))
    loaders = parts.loaders()
    fit(clock, trainer, parts.module, loaders)
    outcome = clock.outcome(0.0)
    load_best(trainer, parts.module)
    metrics = trainer.validate(parts.module, loaders, verbose=False)[0]
    return {**outcome, "accuracy": metrics["accuracy/val"]}


def pretrained(choices: argparse.Namespace) -> tuple[Any, int]:
    """Build the library's network without its head, and return it with the width of its features."""
    if choices.library == "timm":
        import timm
        from safetensors.torch import load_file

        body = timm.create_model(choices.name, num_classes=0, **choices.options)
        body.load_state_dict(load_file(choices.weights), strict=False)
        return body, cast(Any, body).head_hidden_size
    from thaw.models.torchvision import torchvision

    backbone = torchvision(choices.name, choices.weights, options=choices.options)
    return backbone.network, backbone.num_features


def datasets(choices: argparse.Namespace, *last: Any) -> tuple[Any, Any]:
    """Make the training samples (augmented) and the validation samples; `last` are transforms to end with."""
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    size = choices.size_px
    training = v2.Compose([v2.RandomResizedCrop(size, (0.35, 1.0)), v2.RandomHorizontalFlip(), *last])
    evaluation = v2.Compose([v2.Resize(round(size / 0.875)), v2.CenterCrop(size), *last])
    return ImageFolder(f"{choices.data}/train", training), ImageFolder(f"{choices.data}/val", evaluation)


def normalisation(choices: argparse.Namespace) -> Any:
    """Make the transform from uint8 images to the float32 images that the weights expect."""
    import torch
    from torchvision.transforms import v2

    to_float = v2.ToDtype(torch.float32, scale=True)
    return v2.Compose([to_float, v2.Normalize([choices.mean] * 3, [choices.std] * 3)])


def loaders(choices: argparse.Namespace) -> tuple[Any, Any, int]:
    """Make the loaders of training and validation, and count the classes."""
    from torch.utils.data import DataLoader
    from torchvision.transforms import v2

    shared = {"batch_size": choices.batch_size, "num_workers": choices.workers, "persistent_workers": True}
    train_data, val_data = datasets(choices, v2.ToImage(), normalisation(choices))
    return DataLoader(train_data, shuffle=True, **shared), DataLoader(val_data, **shared), len(train_data.classes)


def network_of(choices: argparse.Namespace, classes: int) -> Any:
    """Make the pretrained network with a new head, as its parts `backbone` and `head`."""
    from torch import nn

    body, width = pretrained(choices)
    return nn.Sequential(OrderedDict(backbone=body, head=nn.Linear(width, classes)))


def hand(choices: argparse.Namespace) -> Outcome:
    """Train with a loop of plain PyTorch in fp32: the head at one rate, then everything at a lower one."""
    import torch

    torch.manual_seed(choices.seed)
    epochs, measured = (choices.frozen_epochs, choices.full_epochs), list[float]()
    clock = Clock(*epochs)
    train, val, classes = loaders(choices)
    network = network_of(choices, classes)

    def epoch_ends() -> None:
        measured.append(outputs(network.eval(), val).accuracy)
        clock.mark()

    clock.mark()
    probe_then_full(network, train, epochs, RATES, epoch_ends)
    return clock.outcome(max(measured))


def lightning(choices: argparse.Namespace) -> Outcome:
    """Train with Lightning's BackboneFinetuning."""
    from lightning import seed_everything

    seed_everything(choices.seed, verbose=False)
    epochs, measured = (choices.frozen_epochs, choices.full_epochs), list[float]()
    clock = Clock(*epochs)
    train, val, classes = loaders(choices)
    trainer, module = backbone_finetuning(network_of(choices, classes), epochs, RATES, measured.append)
    fit(clock, trainer, module, train, val)
    return clock.outcome(max(measured))


def fastai(choices: argparse.Namespace) -> Outcome:
    """Train with fastai's fine_tune."""
    from fastai.data.transforms import Normalize
    from fastai.torch_core import set_seed
    from fastai.vision.augment import Flip, RandomResizedCrop
    from fastai.vision.data import ImageDataLoaders

    set_seed(choices.seed)
    clock, measured = Clock(choices.frozen_epochs, choices.full_epochs), list[float]()
    data = ImageDataLoaders.from_folder(
        choices.data,
        train="train",
        valid="val",
        item_tfms=RandomResizedCrop(choices.size_px, min_scale=0.35),
        batch_tfms=[Flip(), Normalize.from_stats([choices.mean] * 3, [choices.std] * 3, cuda=False)],
        bs=choices.batch_size,
        num_workers=choices.workers,
        device="cpu",
    )
    network = network_of(choices, data.c)

    def epoch_ends(accuracy: float) -> None:
        measured.append(accuracy)
        clock.mark()

    learner = fastai_learner(data, network, network.head, epoch_ends)
    clock.mark()
    with learner.no_logging():
        if choices.full_epochs:
            learner.fine_tune(choices.full_epochs, freeze_epochs=choices.frozen_epochs)
        else:  # what fine_tune does before it unfreezes
            learner.freeze()
            learner.fit_one_cycle(choices.frozen_epochs, slice(2e-3), pct_start=0.99)
    return clock.outcome(measured[-1])


if __name__ == "__main__":
    main()
