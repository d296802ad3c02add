"""Run the failed step of a run again, from its folder alone: `python -m thaw.replay run=<folder>`."""

from typing import TYPE_CHECKING

from omegaconf import DictConfig

from thaw.config.command import command
from thaw.errors import UserError
from thaw.imports import library_imports

if TYPE_CHECKING:
    from thaw.config.assemble import Parts
    from thaw.replaying.kit import CrashKit
    from thaw.replaying.step import ReplayResult
    from thaw.runs.folder import RunFolder


@command("replay")
def main(cfg: DictConfig) -> None:
    """Run the step again and print what happens."""
    replay(cfg)


def replay(cfg: DictConfig) -> None:
    """Run the step that `cfg.run` failed in once more and print what happens, stage by stage.

    Raises:
        UserError: the run left no crash kit, or its error is not reproduced.
    """
    with library_imports():
        from thaw.config.recorded import read_config
        from thaw.replaying.kit import find_kit, read_kit
        from thaw.replaying.step import is_same_error
        from thaw.runs.folder import RunFolder

    run = RunFolder(cfg.run)
    read_config(run.path, cfg.trust)  # raises if the folder is no run's
    folder = RunFolder(find_kit(run.path, cfg.rank))
    config, kit = read_config(folder.path, cfg.trust), read_kit(folder.path)
    print(f"the run failed in {kit}\n")
    config.data.merge_with(cfg.data)
    config.trainer.merge_with(cfg.trainer)
    result = _run_again(config, folder, kit)
    if not is_same_error(result.error, kit):
        outcome = f"{type(result.error).__name__}: {result.error}" if result.error else "no error"
        raise UserError(
            f"not reproduced: now there is {outcome}. Loss before the backward pass: now {result.loss!r}, in the run "
            f"{kit.loss!r}; if both are equal, the failure came after it. The run's traceback: {folder.path}/crash.txt"
        )
    print(f"reproduced: {type(result.error).__name__}")


def _run_again(config: DictConfig, folder: "RunFolder", kit: "CrashKit") -> "ReplayResult":
    """Repeat the step, which needs no data, or the loading of its batch, and print what was seen."""
    with library_imports():
        from hydra.errors import HydraException

        from thaw.config import trainers
        from thaw.config.assemble import Labels, assemble, split_data
        from thaw.config.instantiation import TargetError
        from thaw.replaying.kit import version_changes
        from thaw.replaying.step import replay_loading, replay_step
        from thaw.versions import current_versions

    trainer = trainers.trainer_without_logs(config, enable_progress_bar=False)
    if kit.batch is None:
        data = split_data(config, folder, kit.class_names)
        data.use_input_spec(folder.input_spec())
        result = replay_loading(data, kit)
    else:
        facts = ("class_weights", "mean", "std")  # what the task was told of the training samples
        known = {name: kit.tensors[f"task.{name}"].tolist() for name in facts if f"task.{name}" in kit.tensors}
        if config.task.get("class_weights") is not None:
            known.pop("class_weights", None)
        try:
            parts = assemble(config, folder, Labels(kit.class_names, known))
        except (HydraException, TargetError) as error:
            commit = kit.versions["commit"]
            raise UserError(
                f"this code cannot build the run's network: use its code, commit {commit}. {error}"
            ) from error
        _open_entry(parts, kit.batch.start)
        result = replay_step(parts.module, trainer, kit)
    print(result.report)
    now = current_versions(trainer.strategy.root_device, str(trainer.precision))
    changes = ", ".join(version_changes(kit.versions, now))
    print(f"differs from the run: {changes}\n" if changes else "")
    return result


def _open_entry(parts: "Parts", start: int) -> None:
    """Let activations enter the backbone at stage number `start`, as the cache does in training."""
    from thaw.caching.cut import cut  # here, so that --help is fast

    is_inside_backbone = 0 < start < len(parts.network.stages) - 1
    if is_inside_backbone and (entry := cut(parts.network, parts.backbone.input_spec, start)) is not None:
        parts.network.entries[entry.start] = entry.suffix


if __name__ == "__main__":
    main()
