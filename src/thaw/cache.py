"""What was computed once and is kept: `python -m thaw.cache` lists it, `budget_gb=2` makes room."""

from omegaconf import DictConfig

from thaw.config.command import command
from thaw.errors import UserError


@command("cache")
def main(cfg: DictConfig) -> None:
    print(cache(cfg.budget_gb))


def cache(budget_gb: float | None) -> str:
    """A table of all files, those used least recently first; before that, delete of those what is over the budget.

    A run that reads a deleted file goes on with it; the next one computes it again.
    """
    from thaw.caching.listing import files_table
    from thaw.caching.store import entries, prune
    from thaw.storage import cache_folder

    folder = cache_folder()
    if budget_gb is None:
        return files_table(folder, entries(folder))
    if isinstance(budget_gb, str) or not budget_gb >= 0:
        raise UserError(f"budget_gb={budget_gb} is no number of gigabytes from 0 on: type budget_gb=2")
    deleted = prune(folder, budget_gb * 1e9)
    size = sum(entry.num_bytes for entry in deleted) / 1e9
    return f"{files_table(folder, entries(folder))}deleted {len(deleted)} files, {size:.2f} GB"


if __name__ == "__main__":
    main()
