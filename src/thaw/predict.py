"""Classify images with a finished run: `python -m thaw.predict run=<folder> input=<image, folder, glob or table>`."""

from pathlib import Path

from omegaconf import DictConfig

from thaw.command import command


@command("predict")
def main(cfg: DictConfig) -> None:
    predict(cfg)


def predict(cfg: DictConfig) -> Path:
    """Writes a row an image; gives the CSV file. Bad files are listed and skipped."""
    from thaw import build
    from thaw.predicting import input_files, output_files, predictions, write
    from thaw.run_folder import RunFolder, trained

    run = RunFolder(cfg.run)
    was = trained(run)
    task = build.task(was.cfg, len(was.class_names))
    others: list[str] = []
    files = input_files(cfg.input, cfg.path_column, others)
    found = predictions(files, was.network, was.backbone.input_spec, task, cfg.batch_size, cfg.num_workers, cfg.device)
    output = output_files(cfg.output, run.path, cfg.input)
    skipped = write(found, len(files), was.class_names, cfg.top_k, output)
    if skipped:
        print(f"{len(skipped)} of {len(files)} files were skipped:", *(f"  {line}" for line in skipped), sep="\n")
    if others:
        print(f"{len(others)} other files and folders were not used:", *(f"  {line}" for line in others[:20]), sep="\n")
    print(*output, sep="\n")
    return output.csv


if __name__ == "__main__":
    main()
