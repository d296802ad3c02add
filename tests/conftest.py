import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hypothesis import HealthCheck, settings
from lightning import Callback
from omegaconf import DictConfig

from thaw.config import offered, trainers
from thaw.config.conf_folder import CONF
from thaw.storage import CACHE_VARIABLE

TINY = (
    "backbone._target_=tests.tiny.backbone",
    "backbone.weights=null",
    "optimizer.lr_decay=0.8",
    "data.labels_per_class=20",
    "trainer.accelerator=cpu",
    "logger=none",
    "~callbacks.progress_bar",
    "~callbacks.speed",
    "~callbacks.pictures",
    "~callbacks.baselines",
    "report=false",
    "+trainer.enable_progress_bar=false",
)
"""A run of about a second: the digits, few of them, and a tiny network."""
NOISE = ("data._target_=tests.tiny.Noise", "data.labels_per_class=null")
"""After TINY, where it does not matter what is learnt: data that take no time."""
CHOICES = {
    row[0]: [name for name in row[1:] if re.fullmatch(r"[\w*]+", name)]
    for line in (CONF.parent / "README.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("| `") and (row := re.findall(r"`([^`]+)`", "|".join(line.split("|")[:3])))
}
"""Names or patterns of thaw's own options by group, from README's table. Others in conf/ are a user's."""
START_METHOD = "spawn" if torch.accelerator.is_available() else "fork"
"""How tests start processes: a spawned one takes seconds to import torch, a forked one cannot use an accelerator."""
TWO_PROCESSES = (f"+trainer.strategy=ddp_{START_METHOD}", "trainer.devices=2")


# Tests that make up their cases: the same ones each time, as `--hypothesis-seed` in pyproject.toml says. Hypothesis's
# own `derandomize` draws from names of modules and tests: renaming one would change what is tested.
settings.register_profile(
    "quick",
    max_examples=200,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.register_profile("long", settings.get_profile("quick"), max_examples=5000)
settings.load_profile("quick")


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What is kept is the test's own, also in the commands that it starts."""
    folder = tmp_path / "cache"
    monkeypatch.setenv(CACHE_VARIABLE, str(folder))
    return folder


class _WithTests(set[offered.Naming]):
    """What YAML files offer, and whatever is in these tests."""

    def __contains__(self, naming: object) -> bool:
        return super().__contains__(naming) or getattr(naming, "target", "").startswith("tests.")


@pytest.fixture(autouse=True)
def tests_are_offered() -> Iterator[None]:
    """Run folders may name networks, data ... of these tests without `trust=true`."""
    offers = offered.offers
    with pytest.MonkeyPatch.context() as patch:  # of its own: tests undo what they patch
        patch.setattr(offered, "offers", lambda folders: _WithTests(offers(folders)))
        yield


@pytest.fixture
def config(tmp_path: Path) -> Callable[..., DictConfig]:
    """Compose a configuration as the command line would; the run goes to a temporary folder."""

    def compose_config(*overrides: str, name: str = "train") -> DictConfig:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            folder = [f"run_folder={tmp_path / 'run'}"] if name == "train" else []
            return compose(name, [*folder, *overrides])

    return compose_config


@contextmanager
def watched(*watchers: Callback) -> Iterator[None]:
    """What trains meanwhile has these callbacks, too, after thaw's own."""
    make = trainers.callbacks
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainers, "callbacks", lambda *parts: [*make(*parts), *watchers])
        yield
