"""What a function or a class can be called with."""

import inspect
from collections.abc import Mapping
from inspect import Parameter
from typing import Any

CONSTRUCTORS = ("__init__", "__new__")


def keywords(target: Any) -> dict[str, Parameter]:
    """The keywords of a function or class, also those that a class passes on to its bases as `**keywords`."""
    bases = getattr(target, "__mro__", (object,))[:-1]
    functions = [vars(base)[name] for base in bases for name in CONSTRUCTORS if name in vars(base)]
    found: dict[str, Parameter] = {}
    for function in functions or [target]:
        parameters = inspect.signature(getattr(function, "__func__", function)).parameters.values()
        for parameter in parameters:
            variadic = parameter.kind in (Parameter.VAR_KEYWORD, Parameter.VAR_POSITIONAL)
            if not variadic and parameter.name not in ("self", "cls"):
                found.setdefault(parameter.name, parameter)
        if not any(parameter.kind == Parameter.VAR_KEYWORD for parameter in parameters):
            break
    return found


def only_accepted(target: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """Those of `values` whose names are keywords of a function or class."""
    return {name: value for name, value in values.items() if name in keywords(target)}
