"""The only place where Hydra's `instantiate` is called."""

import difflib
import inspect
import logging
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from importlib import import_module
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf

from thaw.errors import UserError
from thaw.runs.secrets import masked
from thaw.signatures import keywords, only_accepted, takes_any

logging.getLogger("hydra.utils").setLevel(logging.CRITICAL)  # it prints what it raises
HYDRA_HINT = ", set env var HYDRA_FULL_ERROR=1 to see chained exception."
"""Commands set it anyway, and print THAW_TRACEBACK as the way to more."""


LIBRARIES = ("torch.", "torchvision.", "torchmetrics.", "lightning.", "timm.", "transformers.")
"""Packages whose ValueErrors are about a value that was configured, and no bug of the user's own code."""


class TargetError(UserError):
    """A `_target_` cannot be imported, does not take a key, or lacks one."""


def make(node: DictConfig, *arguments: Any, **facts: Any) -> Any:
    """Build the object that `node._target_` names; its keywords are the node's keys and `facts`.

    An error raised inside the target comes out as it was raised. Raises TargetError if the target does not take a
    key, or needs one that is not there, or if a library does not take a value.
    """
    try:
        return instantiate(node, *arguments, _convert_="all", **facts)
    except InstantiationException as error:
        failure = error
    # After the handler, so that Python does not chain Hydra's exception to the original one.
    raise _original_error(failure, node, facts)


def make_partial(node: DictConfig, omit: Collection[str] = ()) -> partial[Any]:
    """The function or class that `node._target_` names, with the node's other keys filled in, to be called later.

    Args:
        node: the configuration.
        omit: keys of `node` that are not for the target.

    Raises:
        TargetError: the target does not take a key.
    """
    target_of(node)
    deferred = make(without(node, omit), _partial_=True)
    accepted = keywords(deferred.func)
    if not takes_any(deferred.func) and (unknown := deferred.keywords.keys() - accepted):
        key, word = node._get_full_key(None), min(unknown)
        close = difflib.get_close_matches(word, accepted, n=2, cutoff=0.5)
        hint = f". Did you mean {key}.{f' or {key}.'.join(close)}?" if close else ""
        raise TargetError(
            f"{key}: got an unexpected keyword argument '{word}'. {node._target_} takes {', '.join(accepted)}{hint}"
        )
    return partial(deferred.func, **deferred.keywords)  # Hydra's own object inspects its target in each call


def call_expression(node: DictConfig, *arguments: Any) -> str:
    """Python that calls `node._target_` with these arguments and the node's other keys."""
    named = [f"{key}={value!r}" for key, value in masked(plain(node)).items() if not key.startswith("_")]
    written = [*map(repr, arguments), *named]
    return f"{node._target_}({', '.join(written)})"


def call(function: partial[Any], key: str, facts: Mapping[str, Any]) -> Any:
    """Call what `make_partial` returned with those of `facts` that it takes.

    Args:
        function: the function.
        key: key of the configuration that names it, for messages.
        facts: more keywords.

    Raises:
        TargetError: a keyword is missing.
    """
    given = {**function.keywords, **only_accepted(function.func, facts)}
    needed = [name for name, parameter in keywords(function.func).items() if parameter.default is parameter.empty]
    if missing := [name for name in needed if name not in given]:
        name = f"{function.func.__module__}.{function.func.__qualname__}"
        raise TargetError(f"{key} lacks {', '.join(missing)}, which {name} needs: type +{key}.{missing[0]}=...")
    return function.func(**given)


def without(node: DictConfig, omit: Collection[str]) -> DictConfig:
    """A copy of `node` without some keys, at the same place of the configuration."""
    keys = {key: node._get_node(key) for key in node if key not in omit}
    copy = OmegaConf.create(keys, parent=node._get_parent())  # type: ignore[arg-type]
    copy._set_key(node._key())
    return copy


def target_of(node: DictConfig) -> Any:
    """The function or class that `node._target_` names. Raises TargetError if there is none."""
    name, key = node.get("_target_"), node._get_full_key(None)
    if not isinstance(name, str) or not name:
        raise TargetError(f"{key} names no class or function: type +{key}._target_=<module>.<name>")
    try:
        target = get_object(name)
    except Exception as error:  # the import of a module may raise anything
        raise TargetError(f"{key}._target_={name} {_why_not_found(name)}") from error
    if not callable(target):
        raise TargetError(f"{key}._target_={name} is a {type(target).__name__}, and no class or function")
    return target


def _why_not_found(name: str) -> str:
    """The rest of a sentence that begins with a name which could not be imported."""
    found: Any = None
    for number, word in enumerate(words := name.split(".")):
        path = ".".join(words[: number + 1])
        try:
            found = getattr(found, word) if hasattr(found, word) else import_module(path)
        except ModuleNotFoundError as error:
            if not path.startswith(error.name or "."):
                return f"cannot be imported: there is no module {error.name}, which {path} needs"
            if found is None:
                return f"cannot be imported: there is no module {word}. Is it installed? Is its name whole?"
            close = difflib.get_close_matches(word, dir(found), n=5)
            return f"does not exist: {'.'.join(words[:number])} has no {word}" + (
                f". Similar names: {', '.join(close)}" if close else ""
            )
        except Exception as error:
            return f"cannot be imported: {path} raises {type(error).__name__}: {error}"
    raise AssertionError(f"{name} can be imported")


def make_callable(node: DictConfig) -> Callable[..., Any]:
    """The function that `node._target_` names, with the node's keys filled in; of a class, an object."""
    return make(node) if inspect.isclass(target_of(node)) else make_partial(node)


def plain(cfg: DictConfig) -> dict[str, Any]:
    """A configuration as plain values."""
    return dict(OmegaConf.to_container(cfg, resolve=True))  # type: ignore[arg-type]


def _original_error(failure: InstantiationException, node: DictConfig, facts: Mapping[str, Any]) -> BaseException:
    """Return the error that the target raised, or a TargetError if it was called with wrong keys."""
    call = re.match(r"Error in call to target '(.+?)':.*?(?:\nfull_key: (.+))?$", str(failure), re.DOTALL)
    cause = failure.__cause__
    if call is None or cause is None:
        for part in _nodes_with_target(node):
            target_of(part)
        return TargetError(str(failure).replace(HYDRA_HINT, ""))
    target, key = call.groups()
    if isinstance(cause, ValueError) and not isinstance(cause, UserError) and target.startswith(LIBRARIES):
        return TargetError(f"{key or target}: {str(cause).splitlines()[0]}")
    if not isinstance(cause, TypeError) or cause.__traceback__ is None:
        return cause
    accepted = keywords(get_object(target))
    passed_keys = {*facts, *(OmegaConf.select(node._get_root(), key) if key else node)}
    unexpected = re.search(r"unexpected keyword argument '(.+)'", str(cause))
    # Raised by the call itself, or by a base class to which the target passes its keywords on.
    if cause.__traceback__.tb_next is None or (unexpected and unexpected[1] in passed_keys.difference(accepted)):
        return TargetError(f"{key or target}: {cause}. {target} takes {', '.join(accepted) or 'no keys'}")
    return cause


def _nodes_with_target(node: Any) -> Iterator[DictConfig]:
    """`node` and the nodes in it that name a `_target_`."""
    if isinstance(node, DictConfig):
        if "_target_" in node:
            yield node
        children = [node._get_node(key) for key in node]
    else:
        children = list(node._iter_ex(resolve=False)) if isinstance(node, ListConfig) else []
    for child in children:
        yield from _nodes_with_target(child)
