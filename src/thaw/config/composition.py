"""Composes the configuration of a command from Python, as Hydra does from the command line."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, open_dict

from thaw.arguments import literal
from thaw.config.command import require_read
from thaw.config.conf_folder import CONF
from thaw.config.failures import is_user_error, message
from thaw.config.values import require_valid
from thaw.errors import UserError


@contextmanager
def composed(command: str, choices: Mapping[str, Any], config_dir: str | Path | None = None) -> Iterator[DictConfig]:
    """The configuration that `python -m thaw.<command>` gets; inside the context, the choices count as typed.

    Args:
        command: train, evaluate, predict ...
        choices: values by key, each key as it is typed: `data.root`, `+trainer.limit_train_batches`, `~callbacks.speed`
            (with the value None).
        config_dir: folder of more YAML files, as `--config-dir` names it.

    Raises:
        UserError: whatever a command would print as one message, also what is raised inside the context.
    """
    overrides = [key if key.startswith("~") else f"{key}={literal(value)}" for key, value in choices.items()]
    if config_dir is not None:
        overrides.append(f"hydra.searchpath=[{literal(f'file://{Path(config_dir).absolute()}')}]")
    holder = HydraConfig.instance()
    before = holder.cfg
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = compose(command, overrides, return_hydra_config=True)
        holder.set_config(cfg)
        with open_dict(cfg):
            del cfg["hydra"]
        require_read(cfg, command)
        require_valid(cfg)
        yield cfg
    except UserError:
        raise
    except Exception as error:
        if is_user_error(error):
            raise UserError(message(error)) from error
        raise
    finally:
        holder.cfg = before
