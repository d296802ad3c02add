"""The error that a user can mend."""


class UserError(ValueError):
    """Something that the user typed, or brought, cannot be used.

    Its message says what was expected, what came, and what to type instead. Commands print the message alone; any other
    exception keeps its traceback.
    """


class NonFiniteLossError(UserError, FloatingPointError):
    """The loss became NaN or infinite."""
