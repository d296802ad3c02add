"""The only place where Hydra's `instantiate` is called."""

import inspect
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig

from thaw.errors import UserError


def make(node: DictConfig, **facts: Any) -> Any:
    """Build the object that `node._target_` names from the node's keys and `facts`.

    An error raised inside the target comes out as it was raised. Raises UserError if the target does not take a key, or
    needs one that is not there.
    """
    try:
        return instantiate(node, _convert_="all", **facts)
    except InstantiationException as error:
        failure = error
    # After the handler, so that Python does not chain Hydra's exception to the original one.
    raise _reason(node, failure)


def _reason(node: DictConfig, failure: InstantiationException) -> BaseException:
    cause = failure.__cause__
    if cause is None or cause.__traceback__ is None or "Error in call to target" not in str(failure):
        return failure  # such as a target that cannot be found
    if cause.__traceback__.tb_next is not None or not isinstance(cause, TypeError):  # raised inside the target
        return cause
    target = str(failure).split("'")[1]
    key = node._get_full_key(None) or "the configuration"
    return UserError(f"{key}: {cause}. {target} takes {', '.join(_keywords(get_object(target)))}")


def _keywords(target: Any) -> list[str]:
    """Names of the keywords of a function or class, also those that a class passes on to its bases as `**keywords`."""
    functions = [vars(base)["__init__"] for base in getattr(target, "__mro__", ()) if "__init__" in vars(base)]
    names: dict[str, None] = {}
    for function in functions or [target]:
        parameters = inspect.signature(function).parameters.values()
        variadic = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
        names.update(dict.fromkeys(p.name for p in parameters if p.kind not in variadic and p.name != "self"))
        if not any(parameter.kind == inspect.Parameter.VAR_KEYWORD for parameter in parameters):
            break
    return list(names)
