"""Command that runs the failed step of a run again, from its folder alone: `python -m thaw.replay run=<folder>`."""

from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from thaw.config.command import command
from thaw.errors import UserError

if TYPE_CHECKING:
    from thaw.replaying.kit import CrashKit
    from thaw.runs.folder import RunFolder


@command("replay")
def main(cfg: DictConfig) -> None:
    """Run the command with a composed configuration."""
    replay(cfg)


def replay(cfg: DictConfig) -> None:
    """Run the step that `cfg.run` failed in once more and print what happens, stage by stage.

    Raises:
        UserError: the run left no crash kit, or its error does not come again.
    """
    # Imported here to keep --help fast.
    from thaw.config.build import replaying_trainer
    from thaw.replaying.kit import current_versions, find_kit, read_kit, version_changes
    from thaw.replaying.step import is_same_error, replay_loading, replay_step
    from thaw.runs.folder import RunFolder

    run = RunFolder(cfg.run)
    run.config()  # raises if the folder is no run's
    folder = RunFolder(find_kit(run.path, cfg.rank))
    kit, config = read_kit(folder.path), folder.config()
    print(f"the run failed in {kit}\n")
    config.data.merge_with(cfg.data)
    config.trainer.merge_with(cfg.trainer)
    trainer, rebuilt = replaying_trainer(config), _rebuild(config, folder, kit)
    result = replay_loading(rebuilt, kit) if kit.batch is None else replay_step(rebuilt, trainer, kit)
    print(result.report)
    now = current_versions(trainer.strategy.root_device, str(trainer.precision))
    changes = ", ".join(version_changes(kit.versions, now))
    print(f"differs from the run: {changes}\n" if changes else "")
    if not is_same_error(result.error, kit):
        outcome = f"{type(result.error).__name__}: {result.error}" if result.error else "no error"
        raise UserError(
            f"not met again: now there is {outcome}. Loss before the backward pass: now {result.loss!r}, in the run "
            f"{kit.loss!r}; if both are equal, the failure came after it. The run's traceback: {folder.path}/crash.txt"
        )
    print(f"met again: {type(result.error).__name__}")


def _rebuild(config: DictConfig, folder: "RunFolder", kit: "CrashKit") -> Any:
    """What the kit is replayed with: the run's module, which needs no data, or its data module if loading failed."""
    # Imported here to keep --help fast.
    from hydra.errors import HydraException

    from thaw.config import build
    from thaw.config.restore import unfilled

    if kit.batch is None:
        data = build.unsplit_data(config)
        data.align(kit.class_names)
        data.use_input_spec(folder.input_spec())
        data.split_as(folder.samples())
        return data
    weights = kit.tensors.get("task.class_weights") if config.task.class_weights is None else None
    try:
        backbone, network = unfilled(folder, config, len(kit.class_names))
        class_weights = None if weights is None else weights.tolist()
        labels = build.Labels(kit.class_names, type(backbone.input_spec), class_weights)
        return build.classifier(config, labels, network, build.plan(config, network))
    except HydraException as error:
        commit = kit.versions["commit"]
        raise UserError(f"this code cannot build the run's network: use its code, commit {commit}. {error}") from error


if __name__ == "__main__":
    main()
