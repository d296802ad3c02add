"""Values that cannot be are met with those that can. docs/errors.md has more of them, as commands."""

from collections.abc import Callable

import pytest
from omegaconf import DictConfig

from thaw.config.values import require_valid
from thaw.errors import UserError

Config = Callable[..., DictConfig]

WRONG = {
    "train": [
        ("data.global_batch_size=0", "data.global_batch_size is null or a whole number from 1 on, not 0"),
        ("data.batch_size=true", "data.batch_size is a whole number from 1 on, not True"),
        ("data.batch_size=1.5", "data.batch_size is a whole number from 1 on, not 1.5"),
        ("data.fold=-1", "data.fold is null or a whole number from 0 on, not -1"),
        ("data.labels_per_class=0", "data.labels_per_class is null or a whole number from 1 on, not 0"),
        ("data.test_fraction=1", "data.test_fraction is a number from 0 to below 1, not 1"),
        ("data.flip_probability=1.1", "data.flip_probability is a number from 0 to 1, not 1.1"),
        ("refit=test", "refit is validation or off, not test"),
        ("data.shuffle=3", "data.shuffle is true or false, not 3"),
        (
            "data=image_folder data.root=x data.max_value=65536",
            "data.max_value is null or a whole number from 1 to 65535",
        ),
        ("data=image_folder data.root=x data.class_level=0", "data.class_level is null or a whole number from 1 on"),
        ("data=text_table data.table=x data.max_length_tokens=9.5", "data.max_length_tokens is null or a whole number"),
        (
            "data=text_table data.table=x data.pad_multiple_tokens=0",
            "data.pad_multiple_tokens is a whole number from 1",
        ),
        ("data=text_table data.table=x data.on_bad=skip", "data.on_bad is error or leave_out, not skip"),
        ("data=text_table data.table=x data.quotes=no_way", "data.quotes is true or false, not no_way"),
        ("backbone=gru backbone.units=letters", "backbone.units is words or pieces, not letters"),
        ("backbone=gru backbone.vocabulary_size=2", "backbone.vocabulary_size is a whole number from 3 on, not 2"),
        ("backbone=gru backbone.num_layers=0", "backbone.num_layers is a whole number from 1 on, not 0"),
        ("optimizer.lr=nan", "optimizer.lr is null or a number from 0 on, not nan"),
        ("optimizer.lr_by_processes=cubic", "optimizer.lr_by_processes is none, linear or sqrt, not cubic"),
        (
            "optimizer.rates.batchnorm.lr=fast",
            "optimizer.rates is a mapping from batchnorm, other, scratch and adapter",
        ),
        ("freezing=chain_thaw freezing.rounds=0", "freezing.rounds is a whole number from 1 on, not 0"),
        ("schedule.warmup_fraction=much", "schedule.warmup_fraction is a number from 0 to below 1, not much"),
        (
            "caching.dtype=int8",
            "caching.dtype is null, float32, float16 or bfloat16, not int8",
        ),
        ("data.views=1.5", "data.views is a whole number from 1 on, not 1.5"),
        ("caching.budget_gb=-1", "caching.budget_gb is a number from 0 on, not -1"),
        (
            "callbacks.pictures.every_epochs=0",
            "callbacks.pictures.every_epochs is null or a whole number from 1 on, not 0",
        ),
        ("callbacks.checkpoint.every_minutes=-1", "callbacks.checkpoint.every_minutes is null or a number from 0 on"),
        ("+trainer.logger=false", "trainer.logger would be ignored: type logger=..."),
        ("+trainer.limit_val_batches=1.5", "trainer.limit_val_batches is null or a number of batches from 0 on"),
        ("trainer.devices=0", "trainer.devices is a number of devices"),
    ],
    "predict": [("run=x input=x num_workers=-1", "num_workers is null or a whole number from 0 on, not -1")],
    "export": [
        ("run=x format=pickle", "format is state_dict, safetensors, timm, huggingface, exported_program or onnx, not"),
        ("run=x precision=int4", "precision is fp32, fp16 or int8, not int4: type precision=int8"),
        ("run=x agreement=2", "agreement is null or a number from 0 to 1, not 2"),
    ],
    "cache": [("budget_gb=all", "budget_gb is null or a number from 0 on, not all")],
    "replay": [("run=x rank=-1", "rank is null or a whole number from 0 on, not -1")],
}


@pytest.mark.parametrize(("name", "typed", "said"), [(name, *case) for name, cases in WRONG.items() for case in cases])
def test_a_value_that_cannot_be_is_met_with_those_that_can(config: Config, name: str, typed: str, said: str) -> None:
    with pytest.raises(UserError) as refused:
        require_valid(config(*typed.split(), name=name))
    assert said in str(refused.value)


@pytest.mark.parametrize(
    "typed",
    [
        "trainer.devices=[0,2]",
        "trainer.devices='0,2'",
        "trainer.devices=-1",
        "trainer.precision=16",
        "trainer.precision=bf16-mixed",
        "+trainer.limit_train_batches=1.0",
        "+trainer.limit_val_batches=0",
        "trainer.deterministic=warn",
        "optimizer.lr=0",
        "optimizer.lr=1",
        "data.num_workers=null",
        "freezing._target_=mine.plan freezing.probe_epochs=[1,2]",
        "~callbacks.pictures",
        "callbacks.pictures=null",
        "logger=none",
        "caching=off",
        "experiment=scratch",
        "debug=overfit",
        "resume=auto",
    ],
)
def test_values_that_can_be_go_through(config: Config, typed: str) -> None:
    require_valid(config(*typed.split()))
