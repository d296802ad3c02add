"""The errors that a user can fix."""

from typing import Any


class UserError(ValueError):
    """Something that the user typed, or brought, cannot be used.

    Its message says what was expected, what came, and what to type instead. Commands print the message alone; any other
    exception keeps its traceback.
    """


class NonFiniteLossError(UserError, FloatingPointError):
    """The loss became NaN or infinite. All processes of a run raise it together.

    Attributes:
        batch: the batch that failed, on the process that had it; None on the others, and if it is no longer in memory.
        batch_idx: number of that batch in its epoch.
    """

    def __init__(self, message: str, batch: Any = None, batch_idx: int | None = None):
        super().__init__(message)
        self.batch, self.batch_idx = batch, batch_idx
