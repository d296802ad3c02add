"""Look at this machine, its libraries and the speed of its parts: `python -m thaw.doctor data=... backbone=...`."""

import locale
import os
import platform
import shutil
import sys
import time
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig
from packaging.requirements import Requirement
from rich.markup import escape
from rich.table import Table

from thaw.config.command import command
from thaw.console import as_text
from thaw.imports import library_imports

if TYPE_CHECKING:
    import torch

    from thaw.data.module import DataModule
    from thaw.models.backbone import Backbone
    from thaw.types import Batch

DISTRIBUTION = "lightning-thaw"
LITTLE_SHARED_MEMORY = 1e9
LITTLE_DISK = 5e9


@command("doctor")
def main(cfg: DictConfig) -> None:
    """Print what was found about the machine, then how fast its parts are."""
    print(table(machine()), end="", flush=True)
    print(speeds(cfg), end="")


def libraries() -> tuple[list[str], list[str]]:
    """Names and versions of the libraries that thaw names, and what is wrong about them."""
    fit, faults = [], []
    requirements = map(Requirement, requires(DISTRIBUTION) or ())
    for requirement in (one for one in requirements if one.name != DISTRIBUTION and "dev" not in str(one.marker)):
        installed = _installed(requirement.name)
        if installed is not None and requirement.specifier.contains(installed, prereleases=True):
            fit.append(f"{requirement.name} {installed}")
        elif installed is not None:
            faults.append(f"{requirement.name} {installed} is known to fail: pip install '{requirement}'")
        elif requirement.marker is None:  # not of an extra
            faults.append(f"{requirement.name} is missing: pip install '{requirement}'")
    return fit, faults


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def machine() -> Iterator[tuple[str, str]]:
    """Facts about the machine by name, with what is wrong about them."""
    import torch

    from thaw.data.loader import SHARED_MEMORY, default_workers, free_shared_memory
    from thaw.storage import cache_folder

    fit, faults = libraries()
    yield "Python", f"{platform.python_version()} on {platform.platform()}"
    yield "libraries", ", ".join(fit)
    yield from (("library", fault) for fault in faults)
    yield "cores", f"{os.cpu_count()}: {default_workers()} loader processes, {torch.get_num_threads()} threads of torch"
    yield "memory", f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1e9:.1f} GB"
    names = [
        f"{torch.cuda.get_device_name(i)} ({torch.cuda.get_device_properties(i).total_memory / 1e9:.0f} GB)"
        for i in range(torch.cuda.device_count())
    ]
    other = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    yield "devices", ", ".join(names) or (str(other) if other else "no accelerator: runs take the CPU")
    if (free := free_shared_memory()) is not None:
        advice = ": little for loader processes, in Docker --shm-size=8g" if free < LITTLE_SHARED_MEMORY else ""
        yield SHARED_MEMORY, f"{free / 1e9:.1f} GB free{advice}"
    for name, folder in (("runs", Path("runs")), ("cache", cache_folder())):
        yield name, _folder(folder)
    encoding = sys.stdout.encoding
    advice = "" if encoding.lower().startswith("utf") else ": tables are printed without lines (PYTHONIOENCODING=utf-8)"
    yield "encoding", f"{encoding} (files: {locale.getpreferredencoding()}){advice}"


def _folder(folder: Path) -> str:
    """Where a folder is, whether it can be written to, and how much room it has."""
    from thaw.storage import require_writable

    existing = next(part for part in (folder.absolute(), *folder.absolute().parents) if part.is_dir())
    free = shutil.disk_usage(existing).free
    try:
        require_writable(existing)
    except ValueError:
        return f"{folder.absolute()} cannot be written to"
    return f"{folder.absolute()}, {free / 1e9:.0f} GB free{': little' if free < LITTLE_DISK else ''}"


def speeds(cfg: DictConfig) -> str:
    """Samples a second that are decoded, loaded and trained on, and which of it a run without the cache would wait for.

    The network trains all its stages, from random weights.
    """
    with library_imports():
        import torch

        from thaw.config import build

    data = build.data(cfg)
    data.split()
    backbone = build.backbone(cfg, pretrained=False, texts=data.training_texts, pairs=data.pairs)
    data.use_input_spec(backbone.input_spec)
    device = (torch.accelerator.is_available() and torch.accelerator.current_accelerator()) or torch.device("cpu")
    workers, data.num_workers = data.num_workers, 0
    decoding, batches = _loading_rate(data, cfg.batches)
    training = _training_rate(data, backbone, batches, device)
    data.num_workers = workers
    loading = _loading_rate(data, cfg.batches)[0] if workers else decoding
    rates = {
        "decoding, in one process": decoding,
        f"loading, {workers} loader processes": loading,
        f"training on {device}": training,
    }
    if loading < training:
        limit = "loading is the limit: more data.num_workers, or data.decoded=on, which decodes images only once"
    else:
        limit = "the network is the limit: loading keeps up with it"
    return f"{table((what, f'{rate:,.0f} samples a second') for what, rate in rates.items())}{limit}\n"


def _loading_rate(data: "DataModule", num_batches: int) -> tuple[float, "list[Batch]"]:
    """Training samples a second that loaders give, and their batches. The first is not timed if there are more."""
    began, loader = time.perf_counter(), iter(data.train_dataloader())
    first = next(loader)
    began_rest = time.perf_counter()
    if rest := list(islice(loader, num_batches)):
        return _rate(rest, began_rest), [first, *rest]
    return _rate([first], began), [first]


def _training_rate(data: "DataModule", backbone: "Backbone", batches: "list[Batch]", device: "torch.device") -> float:
    """Samples a second that are trained on, all stages at once, after a first step that is not timed."""
    import torch

    from thaw.models.heads import linear
    from thaw.models.network import Network

    network = Network(backbone, linear(backbone.num_features, len(data.class_names))).to(device)
    optimizer = torch.optim.AdamW(network.parameters())
    began = 0.0
    for number, batch in enumerate([batches[0], *batches]):
        if number == 1:
            began = time.perf_counter()
        inputs, targets, *_ = data.on_after_batch_transfer(data.transfer_batch_to_device(batch, device, 0), 0)
        loss = torch.nn.functional.cross_entropy(network(inputs), targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        loss.item()  # waits for the device
    return _rate(batches, began)


def _rate(batches: "list[Batch]", began: float) -> float:
    return sum(len(batch.index) for batch in batches) / (time.perf_counter() - began)


def table(rows: Iterable[tuple[str, str]]) -> str:
    """Names and facts as a table."""
    table = Table(show_header=False)
    for name, fact in rows:
        table.add_row(escape(name), escape(fact))
    return as_text(table)


if __name__ == "__main__":
    main()
