"""Run the step again that a run failed in, from its folder alone: `python -m thaw.replay run=<folder>`."""

from typing import TYPE_CHECKING

from omegaconf import DictConfig

from thaw.config.command import command
from thaw.errors import UserError

if TYPE_CHECKING:
    from thaw.data.module import DataModule
    from thaw.replaying.kit import Kit
    from thaw.training.module import FineTuningModule


@command("replay")
def main(cfg: DictConfig) -> None:
    replay(cfg)


def replay(cfg: DictConfig) -> None:
    """Prints what happens stage by stage. Raises UserError where the run's error is not met again."""
    import torch

    from thaw.config import build
    from thaw.replaying.again import load_again, step_again, what_differs
    from thaw.replaying.callback import CrashKit
    from thaw.replaying.kit import read_kit
    from thaw.replaying.versions import differences, versions
    from thaw.runs.folder import RunFolder

    kit = read_kit(RunFolder(cfg.run), cfg.rank)
    print(f"the run: {kit.crash}\n")
    was, at_work = RunFolder(kit.folder).config(), CrashKit()
    was.data.merge_with(cfg.data)
    available = getattr(torch, kit.crash.device).is_available()
    was.trainer.merge_with({"accelerator": kit.crash.device if available else "cpu"}, cfg.trainer)
    trainer = build.replaying_trainer(was, at_work)
    loading = kit.batch is None
    again = load_again(_data(was, kit), kit) if loading else step_again(_classifier(was, kit), trainer, at_work, kit)
    print(again.report, "\n")
    others = differences(kit.crash.versions, versions(trainer.strategy.root_device, str(trainer.precision)))
    other = f"; differs from the run: {', '.join(others)}" if others else ""
    if (problem := what_differs(kit.crash, again, loading)) is not None:
        raise UserError(f"not met again: {problem} (traceback of the run: {kit.folder}/crash.txt{other})")
    print(f"met again: {kit.crash.error}{other}")


def _classifier(was: DictConfig, kit: "Kit") -> "FineTuningModule":
    """As the run built it; its data need not be there."""
    from hydra.errors import HydraException

    from thaw.config import build
    from thaw.config.restore import unfilled
    from thaw.runs.folder import RunFolder

    weights = kit.tensors.get("task.class_weights")
    try:
        backbone, network = unfilled(RunFolder(kit.folder), was, len(kit.crash.class_names))
        labels = build.Labels(
            kit.crash.class_names,
            takes=type(backbone.input_spec),
            # Those of the configuration come from there.
            class_weights=weights.tolist() if weights is not None and was.task.class_weights is None else None,
        )
        return build.classifier(was, labels, network, build.plan(was, network))
    except HydraException as error:
        raise UserError(
            f"this code does not build what the run had: take the code of the run, {kit.crash.versions.get('thaw')}. "
            f"{error}"
        ) from error


def _data(was: DictConfig, kit: "Kit") -> "DataModule":
    """Split as it was. Raises UserError where samples are gone."""
    from thaw.config import build
    from thaw.runs.folder import RunFolder

    run = RunFolder(kit.folder)
    data = build.unsplit_data(was)
    data.align(kit.crash.class_names)
    data.use_input_spec(run.input_spec())
    data.split_as(run.samples())
    return data


if __name__ == "__main__":
    main()
