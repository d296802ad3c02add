"""The only place where Hydra's `instantiate` is called."""

import inspect
import re
from collections.abc import Mapping
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf

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
    raise _reason(failure, node, facts)


def _reason(failure: InstantiationException, node: DictConfig, facts: Mapping[str, Any]) -> BaseException:
    call = re.match(r"Error in call to target '(.+?)':.*?(?:\nfull_key: (.+))?$", str(failure), re.DOTALL)
    cause = failure.__cause__
    if call is None or cause is None:
        return failure  # such as a target that cannot be found
    target, key = call.groups()
    if not isinstance(cause, TypeError) or cause.__traceback__ is None:
        return cause
    takes = _keywords(get_object(target))
    given = {*facts, *(OmegaConf.select(node._get_root(), key) if key else node)}
    unexpected = re.search(r"unexpected keyword argument '(.+)'", str(cause))
    # Raised by the call itself, or by a base class to which the target passes its keywords on.
    if cause.__traceback__.tb_next is None or (unexpected and unexpected[1] in given.difference(takes)):
        return UserError(f"{key or target}: {cause}. {target} takes {', '.join(takes)}")
    return cause


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
