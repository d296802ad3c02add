"""Keys that nothing reads, and changes to the plan of a resumed run."""

import pytest
from omegaconf import OmegaConf

from thaw.config.overrides import dotted_keys, require_known, similar_keys, with_new_plan_keys
from thaw.errors import UserError

CFG = OmegaConf.create(
    {
        "seed": 0,
        "data": {"batch_size": 32},
        "caching": None,
        "optimizer": {"lr": None, "rates": {"batchnorm": {"lr": 1}}},
        "freezing": {"epochs": 12, "probe_epochs": None},
        "trainer": {"precision": "32-true"},
        "run_folder": "???",
    }
)


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("epochs", ["freezing.epochs"]),
        ("max_epochs", ["freezing.epochs"]),
        ("lr", ["optimizer.lr", "optimizer.rates.batchnorm.lr"]),
        ("batch_size", ["data.batch_size"]),
        ("trian.precision", ["trainer.precision"]),
        ("precison", ["trainer.precision"]),
        ("zebra", []),
    ],
)
def test_keys_that_may_be_meant(key: str, meant: list[str]) -> None:
    assert similar_keys(key, dotted_keys(CFG)) == meant


def test_a_key_that_nothing_reads_is_refused() -> None:
    fine = (
        "seed=1",
        "+data.mine=2",
        "++trainer.limit_train_batches=1",
        "+experiment=digits",
        "~callbacks.x",
        "+data@d=x",
    )
    require_known(fine, {"data", "trainer", "experiment"}, CFG)
    with pytest.raises(UserError, match=r"^\+lr=0.5: nothing reads lr. Type optimizer.lr=..., optimizer.rates"):
        require_known(["+lr=0.5"], {"data"}, CFG)
    with pytest.raises(UserError, match="--help lists all keys"):
        require_known(["++zebra.stripes=2"], {"data"}, CFG)


def test_a_resumed_plan_takes_its_own_keys() -> None:
    resumed = ["resume=runs/x", "freezing.epochs=70", "trainer.precision=64"]
    assert with_new_plan_keys(resumed) == ["resume=runs/x", "++freezing.epochs=70", "trainer.precision=64"]
    for others in (["freezing.epochs=70"], ["resume=runs/x", "freezing=full", "freezing.epochs=70"]):
        assert with_new_plan_keys(others) == others
