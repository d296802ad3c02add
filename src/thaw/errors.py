"""The errors that a user can mend."""

from typing import Any


class UserError(ValueError):
    """Something that the user typed, or brought, cannot be used.

    Its message says what was expected, what came, and what to type instead. Commands print the message alone; any other
    exception keeps its traceback.
    """


class NonFiniteLossError(UserError, FloatingPointError):
    """The loss became NaN or infinite. All processes of a run raise it together.

    Attributes:
        step: The `CheckedStep` that failed, on the process that had it; None on the others.
        own_message: The message that this process alone would have; None on the others.
    """

    def __init__(self, message: str, step: Any = None, own_message: str | None = None):
        super().__init__(message)
        self.step, self.own_message = step, own_message
