"""What a function or a class can be called with."""

import inspect
from collections.abc import Mapping
from inspect import Parameter
from typing import Any

CONSTRUCTORS = ("__init__", "__new__")


def keywords(target: Any) -> dict[str, Parameter]:
    """The keywords of a function or class, also those that a class passes on to its bases as `**keywords`."""
    found: dict[str, Parameter] = {}
    for parameter in (parameter for parameters in _signatures(target) for parameter in parameters):
        variadic = parameter.kind in (Parameter.VAR_KEYWORD, Parameter.VAR_POSITIONAL)
        if not variadic and parameter.name not in ("self", "cls"):
            found.setdefault(parameter.name, parameter)
    return found


def takes_any(target: Any) -> bool:
    """Whether a function or class takes keywords of any name."""
    return any(parameter.kind == Parameter.VAR_KEYWORD for parameter in _signatures(target)[-1])


def _signatures(target: Any) -> list[list[Parameter]]:
    """Parameters of a function; for a class, of its constructor, then of those that it passes keywords on to."""
    bases = getattr(target, "__mro__", (object,))[:-1]
    functions = [vars(base)[name] for base in bases for name in CONSTRUCTORS if name in vars(base)]
    found = []
    for function in functions or [target]:
        found.append(list(inspect.signature(getattr(function, "__func__", function)).parameters.values()))
        if not any(parameter.kind == Parameter.VAR_KEYWORD for parameter in found[-1]):
            break
    return found


def only_accepted(target: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """Those of `values` whose names are keywords of a function or class."""
    return {name: value for name, value in values.items() if name in keywords(target)}
