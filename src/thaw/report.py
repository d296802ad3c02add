"""Write the report of a run again, from its folder alone: `python -m thaw.report run=<folder>`."""

from pathlib import Path

from omegaconf import DictConfig

from thaw.config.command import command
from thaw.errors import UserError
from thaw.imports import library_imports


@command("report")
def main(cfg: DictConfig) -> None:
    """Entry point of the command line."""
    print(report(cfg))


def report(cfg: DictConfig) -> Path:
    """Write the report of a run, which may have ended in any way, and return the file.

    Samples are shown if the data are where they were and did not change. Raises UserError if `run` is no run folder.
    """
    with library_imports():
        from thaw.config.assemble import assemble, split_data
        from thaw.config.recorded import read_config
        from thaw.reporting.write import write_report
        from thaw.runs.files import REPORT_FILE
        from thaw.runs.folder import RunFolder
        from thaw.storage import writing_to

    run = RunFolder(cfg.run)
    run_cfg = read_config(run.path, cfg.trust)
    run_cfg.data.merge_with(cfg.data)
    records = run.records()
    data = network = None
    try:
        if run.best_weights is not None:
            parts = assemble(run_cfg, run)
            data, network = parts.samples, parts.network
        else:
            data = split_data(run_cfg)
        if data.identities() != [record.sample for record in records]:
            raise UserError("the data have changed since the run")
    except (UserError, OSError) as error:
        print(f"no samples are shown: {error}")
        data = None
    class_names = run.class_names() if run.best_weights is not None else sorted({record.label for record in records})
    file = run.path / REPORT_FILE if cfg.output is None else Path(cfg.output).expanduser().resolve()
    with writing_to(file.parent):
        return write_report(run, class_names, data, network, file=file)


if __name__ == "__main__":
    main()
