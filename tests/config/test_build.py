"""From the configuration to objects: rates by kind of network, optimizers, heads, modules and loggers by `_target_`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from omegaconf import DictConfig
from safetensors.torch import load_file

from tests.conftest import NOISE, TINY
from tests.tiny import Shifted, backbone
from thaw.caching.data_module import CachedDataModule
from thaw.config import build
from thaw.config.assemble import start, trained
from thaw.config.rates import from_scratch
from thaw.errors import UserError
from thaw.evaluate import evaluate
from thaw.finetuning.param_groups import Rates
from thaw.models.network import Network
from thaw.models.weights import write_safetensors
from thaw.train import train
from thaw.training.module import FineTuningModule

Config = Callable[..., DictConfig]


def test_an_optimizer_gets_what_it_takes_and_no_more(config: Config, caplog: pytest.LogCaptureFixture) -> None:
    def options(*choices: str) -> dict[str, Any]:
        return build.optimizer(config(*choices), Rates(0.1)).keywords["optimizer"].keywords

    assert options() == {"fused": True}
    assert options("optimizer=sgd") == {"momentum": 0.9, "nesterov": True}
    assert options("optimizer._target_=torch.optim.Adafactor", "+optimizer.d=2.0") == {"d": 2.0}
    assert options("trainer.precision=bf16-mixed", "trainer.gradient_clip_val=1.0") == {}
    assert not caplog.messages
    options("optimizer._target_=torch.optim.Rprop")
    assert "optimizer.weight_decay is ignored: torch.optim.Rprop has none" in caplog.text
    with pytest.raises(UserError, match=r"optimizer: got an unexpected keyword argument 'beta'. .*AdamW takes .*betas"):
        options("+optimizer.beta=0.9")
    with pytest.raises(UserError, match=r"optimizer._target_=torch.optim.Adamw does not exist: .* AdamW"):
        options("optimizer._target_=torch.optim.Adamw")


def test_a_scheduler_of_torch_is_a_schedule_and_one_that_cannot_be_is_refused(config: Config) -> None:
    schedule = build.schedule(
        config("schedule=constant", "schedule._target_=torch.optim.lr_scheduler.CosineAnnealingLR")
    )
    assert [schedule(step, 8) for step in (0, 4, 8)] == pytest.approx([1.0, 0.5, 0.0])
    with pytest.raises(UserError, match="ReduceLROnPlateau needs more than the step"):
        build.schedule(config("schedule=constant", "schedule._target_=torch.optim.lr_scheduler.ReduceLROnPlateau"))


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("StepLR", r"schedule lacks step_size, which StepLR needs: type \+schedule.step_size="),
        ("StepLR +schedule.step_size=0", "schedule: .*by zero"),
        ("StepLR +schedule.step_size=many", "schedule: unsupported operand"),
        (
            "StepLR +schedule.step_size=2 +schedule.optimizer=adam",
            "schedule: .*multiple values for",
        ),
        ("LinearLR +schedule.start_factor=3", "schedule: Starting multiplicative factor expected to be"),
        ("MultiStepLR +schedule.milestones=3", "schedule: 'int' object is not iterable"),
        ("StepLR +schedule.step_size=2 schedule=warmup_cosine", "argument 'final_factor'.* type schedule=constant sch"),
    ],
)
def test_options_that_a_scheduler_of_torch_does_not_take_are_refused(config: Config, typed: str, said: str) -> None:
    name, *options = typed.split()
    with pytest.raises(UserError, match=said):
        build.schedule(config("schedule=constant", f"schedule._target_=torch.optim.lr_scheduler.{name}", *options))


def test_what_is_no_schedule_is_refused(config: Config) -> None:
    with pytest.raises(UserError, match=r"schedule gives 'linear', and a factor on the rates is a number"):
        build.schedule(config("schedule=constant", "schedule._target_=tests.tiny.no_factor"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("+optimizer.betas=3",), "optimizer: 'int' object is not subscriptable"),
        (("optimizer=sgd", "optimizer.momentum=much"), "optimizer: '<' not supported"),
        (("optimizer._target_=torch.nn.Linear",), "optimizer: .*unexpected keyword argument 'lr'"),
    ],
)
def test_options_that_an_optimizer_does_not_take_are_refused(
    config: Config, options: tuple[str, ...], said: str
) -> None:
    def start_and_make() -> None:
        start(config(*TINY, *NOISE, *options))[1].module.new_optimizer(1)

    with pytest.raises(UserError, match=said):
        start_and_make()


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (
            "head._target_=thaw.models.heads.liner",
            "head._target_=.* does not exist: .*has no liner. Sim.*: linear",
        ),
        ("freezing._target_=thaw.finetuning.plan.full", "does not exist: thaw.finetuning has no plan. Similar .*plans"),
        ("optimizer._target_=torch.optim.AdamX", "torch.optim has no AdamX. Similar names: .*AdamW"),
        ("optimizer._target_=adamw", "cannot be imported: there is no module adamw"),
        ("module._target_=3", "module names no class or function"),
        ("schedule._target_=torch.optim", "schedule._target_=torch.optim is a module, and no class or function"),
        ("+callbacks.x={_target_: lightning.pytorch.callbacks.Nope}", "callbacks.x._target_=.* has no Nope"),
        ("+trainer.profiler={_target_: lightning.Nope}", "trainer.profiler._target_=lightning.Nope does not exist"),
        ("+task.metrics.x={top_k: 3}", "task.metrics.x is a mapping with _target_, not "),
    ],
)
def test_a_target_that_does_not_exist_is_met_with_one_line(config: Config, typed: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as refusal:
        start(config(*TINY, *NOISE, "freezing=full", typed))
    assert "HYDRA_FULL_ERROR" not in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_what_is_missing_or_too_much_is_named(config: Config) -> None:
    own = ("backbone._target_=tests.tiny.made_up", "~backbone.weights")
    with pytest.raises(UserError, match=r"backbone lacks kinds, which tests.tiny.made_up needs: type \+backbone.kinds"):
        build.backbone(config(*own))
    with pytest.raises(UserError, match=r"module: got an unexpected keyword argument 'shrae'"):
        start(config(*TINY, *NOISE, "module._target_=tests.tiny.Shifted", "+module.shrae=2"))
    with pytest.raises(UserError, match="takes seed, as the data module does: name it otherwise"):
        build.data(config("data._target_=tests.tiny.seeded"))
    with pytest.raises(UserError, match=r"freezing._target_=tests.tiny.stage_names gives 'stem' among its phases"):
        start(config(*TINY, *NOISE, "freezing=head_only", "freezing._target_=tests.tiny.stage_names"))


def test_a_callback_that_cannot_follow_a_plan_is_refused(config: Config) -> None:
    accumulate = (
        "+callbacks.more={_target_: lightning.pytorch.callbacks.GradientAccumulationScheduler, scheduling: {4: 2}}"
    )
    with pytest.raises(UserError, match=r"changes the number of steps.*accumulate_grad_batches"):
        start(config(*TINY, *NOISE, accumulate))


def test_a_head_that_does_not_fit_is_refused(config: Config) -> None:
    def built(kind: str) -> Network:
        cfg = config(f"head._target_=torch.nn.{kind}", "~head.dropout")
        return build.network(cfg, backbone(), build.head(cfg, backbone().num_features, 3))

    assert built("Linear").head.out_features == 3
    with pytest.raises(UserError, match=r"turns features \(2, 16\) into \(2, 16\), and there are 3 classes"):
        built("LayerNorm")


def test_metrics_are_told_of_the_classes_and_may_be_added_and_taken_away(config: Config) -> None:
    top2 = "+task.metrics.top2={_target_: torchmetrics.Accuracy, top_k: 2}"
    metrics = build.task(config(top2, "~task.metrics.calibration_error"), list("abc")).metrics()
    assert set(metrics) == {"loss", "accuracy", "macro_f1", "macro_precision", "macro_recall", "top2"}
    metrics["top2"].update(torch.tensor([[0.5, 0.4, 0.1], [0.5, 0.1, 0.4]]), torch.tensor([1, 1]))
    assert metrics["top2"].compute() == 0.5


def test_class_weights_go_by_name_too(config: Config) -> None:
    by_name = build.task(config("task.class_weights={spam: 3, ham: 0.5}"), ["ham", "other", "spam"])
    assert by_name.class_weights is not None
    assert by_name.class_weights.tolist() == [0.5, 1.0, 3.0]
    numbered = build.task(config("task.class_weights={0: 2}"), ["0", "1"]).class_weights
    assert numbered is not None
    assert numbered.tolist() == [2.0, 1.0]
    with pytest.raises(UserError, match=r"task.class_weights names egg, and the classes are ham, spam"):
        build.task(config("task.class_weights={egg: 3}"), ["ham", "spam"])
    with pytest.raises(UserError, match=r"weighs the classes, and so does task.class_weights"):
        build.task(config("task.class_weights={ham: 3}"), ["ham", "spam"], {"class_weights": [1.0, 1.0]})


@pytest.mark.parametrize("weights", ["pretrained", "true", "DEFAULT", "IMAGENET1K_V1", "none", "null", "false", "None"])
def test_only_random_weights_are_from_scratch(config: Config, weights: str) -> None:
    cfg = config("backbone=torchvision", f"backbone.weights={weights}")
    assert from_scratch(cfg) == (weights in ("none", "null", "false", "None"))
    cfg.init_from = "run"
    assert not from_scratch(cfg)
    cfg.pretrained = False
    assert from_scratch(cfg)


def test_a_backbone_that_brings_its_own_weights_cannot_have_random_ones(config: Config) -> None:
    with pytest.raises(UserError, match=r"pretrained=false is for backbones that take `weights`, and tests.tiny.chain"):
        build.backbone(config("backbone._target_=tests.tiny.chain", "pretrained=false"))


def test_what_gives_no_backbone_and_what_is_no_module_are_refused(config: Config) -> None:
    with pytest.raises(UserError, match=r"backbone._target_=torch.nn.Identity gives a Identity: it should give"):
        build.backbone(config("backbone._target_=torch.nn.Identity", "~backbone.weights"))
    with pytest.raises(UserError, match=r"module._target_=lightning.LightningModule is not a class derived from"):
        start(config(*TINY, *NOISE, "module._target_=lightning.LightningModule"))


def test_a_factory_without_weights_is_called_without_them(config: Config) -> None:
    cfg = config("backbone._target_=tests.tiny.made_up", "~backbone.weights", "+backbone.kinds=[conv pool]")
    assert build.backbone(cfg, pretrained=False).num_features == 16


def test_the_first_chosen_logger_is_the_trainers_and_any_of_lightning_s_can_be_chosen(config: Config, tmp_path) -> None:
    csv = f"+logger.csv={{_target_: lightning.pytorch.loggers.CSVLogger, save_dir: {tmp_path}}}"
    run, _, trainer = start(config(*TINY, *NOISE, "logger=tensorboard", csv))
    assert hasattr(trainer.logger.experiment, "add_figure")
    assert type(trainer.loggers[1]) is CSVLogger
    assert Path(trainer.loggers[2].log_dir) == run.path
    assert trainer.checkpoint_callback.dirpath == str(run.checkpoints)


def test_what_a_module_has_beside_its_network_trains_and_is_kept(config: Config, tmp_path: Path) -> None:
    metrics = train(config(*TINY, *NOISE, "module._target_=tests.tiny.Shifted", "freezing=full", "freezing.epochs=2"))
    parts = trained(str(tmp_path / "run"))
    assert parts.module.shift.abs().min() > 0
    groups = {group["name"]: group["lr"] for group in parts.module.new_optimizer(1).param_groups}
    assert groups["others/no_decay"] == groups["head/no_decay"]
    assert "others/decay" not in groups, "a frozen part"
    measured = evaluate(config("run=" + str(tmp_path / "run"), name="evaluate"))
    assert measured == {name: value for name, value in metrics.items() if name.endswith("/test")}


def test_a_step_of_one_s_own_gets_raw_inputs_unless_it_takes_activations(config: Config, tmp_path: Path) -> None:
    class Willing(Shifted):
        takes_activations = True

    assert (FineTuningModule.takes_activations, Shifted.takes_activations, Willing.takes_activations) == (
        True,
        False,
        True,
    )
    own = ("module._target_=tests.tiny.Shifted", "freezing=head_only", "freezing.epochs=1")
    for module, start_stage in ((own, 0), (own[1:], 3)):
        _, parts, trainer = start(config(*TINY, *NOISE, *module, f"run_folder={tmp_path}/{start_stage}"))
        loaders = parts.loaders()
        loaders.trainer = trainer
        assert isinstance(loaders, CachedDataModule)
        assert loaders.start("train", 0) == start_stage


def test_tied_tensors_are_written(tmp_path: Path) -> None:
    weight = torch.ones(2, 2)
    write_safetensors(tmp_path / "tied.safetensors", {"there": weight, "back": weight, "part": weight[0]})
    assert {name: value.shape for name, value in load_file(tmp_path / "tied.safetensors").items()} == {
        "there": (2, 2),
        "back": (2, 2),
        "part": (2,),
    }
