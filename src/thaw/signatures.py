"""What a function or a class can be called with."""

import inspect
from inspect import Parameter
from typing import Any


def keywords(target: Any) -> dict[str, Parameter]:
    """The keywords of a function or class, also those that a class passes on to its bases as `**keywords`."""
    functions = [vars(base)["__init__"] for base in getattr(target, "__mro__", ()) if "__init__" in vars(base)]
    found: dict[str, Parameter] = {}
    for function in functions or [target]:
        parameters = inspect.signature(function).parameters.values()
        for parameter in parameters:
            if parameter.kind not in (Parameter.VAR_KEYWORD, Parameter.VAR_POSITIONAL) and parameter.name != "self":
                found.setdefault(parameter.name, parameter)
        if not any(parameter.kind == Parameter.VAR_KEYWORD for parameter in parameters):
            break
    return found
