"""What a function or a class can be called with."""

import inspect
from typing import Any

CONSTRUCTORS = ("__init__", "__new__")


def keyword_names(target: Any) -> list[str]:
    """Names of the keywords of a function or class, also those that a class passes on to its bases as `**keywords`."""
    bases = getattr(target, "__mro__", (object,))[:-1]
    functions = [vars(base)[name] for base in bases for name in CONSTRUCTORS if name in vars(base)]
    names: dict[str, None] = {}
    for function in functions or [target]:
        parameters = inspect.signature(getattr(function, "__func__", function)).parameters.values()
        variadic = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
        names.update(
            dict.fromkeys(p.name for p in parameters if p.kind not in variadic and p.name not in ("self", "cls"))
        )
        if not any(parameter.kind == inspect.Parameter.VAR_KEYWORD for parameter in parameters):
            break
    return list(names)
