"""Values in messages."""

from typing import Any

import numpy as np
from torch import Tensor


def described(value: Any) -> str:
    """A value for messages: type and shape of arrays and tensors, else the value itself."""
    kind = type(value).__name__
    if isinstance(value, (np.ndarray, Tensor)) and value.ndim:
        return f"{kind} of {str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    return f"{short(repr(value))} ({kind})"


def short(text: str, most: int = 60) -> str:
    """The beginning of a text, on one line."""
    words = " ".join(text.split())
    return words if len(words) <= most else f"{words[: most - 3]}..."
