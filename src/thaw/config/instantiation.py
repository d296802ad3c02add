"""The only place where Hydra's `instantiate` is called."""

import re
from collections.abc import Mapping
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf

from thaw.errors import UserError
from thaw.signatures import keywords


class WrongKeyError(UserError):
    """A target does not take a key, or lacks one."""


def make(node: DictConfig, **facts: Any) -> Any:
    """Build the object that `node._target_` names; its arguments are the node's keys and `facts`.

    An error raised inside the target comes out as it was raised. Raises WrongKeyError if the target does not take a
    key, or needs one that is not there.
    """
    try:
        return instantiate(node, _convert_="all", **facts)
    except InstantiationException as error:
        failure = error
    # After the handler, so that Python does not chain Hydra's exception to the original one.
    raise _original_error(failure, node, facts)


def _original_error(failure: InstantiationException, node: DictConfig, facts: Mapping[str, Any]) -> BaseException:
    """Return the error that the target raised, or a WrongKeyError if it was called with wrong keys."""
    call = re.match(r"Error in call to target '(.+?)':.*?(?:\nfull_key: (.+))?$", str(failure), re.DOTALL)
    cause = failure.__cause__
    if call is None or cause is None:
        return failure  # such as a target that cannot be found
    target, key = call.groups()
    if not isinstance(cause, TypeError) or cause.__traceback__ is None:
        return cause
    accepted = keywords(get_object(target))
    passed_keys = {*facts, *(OmegaConf.select(node._get_root(), key) if key else node)}
    unexpected = re.search(r"unexpected keyword argument '(.+)'", str(cause))
    # Raised by the call itself, or by a base class to which the target passes its keywords on.
    if cause.__traceback__.tb_next is None or (unexpected and unexpected[1] in passed_keys.difference(accepted)):
        return WrongKeyError(f"{key or target}: {cause}. {target} takes {', '.join(accepted) or 'no keys'}")
    return cause
