"""Errors that a user can act on: one line that says what is wrong and what would be right."""

DIVERGED = "training diverged"  # how the message of a training run that did begins


class UserError(Exception):
    """Bad input. Commands print its message as one line and exit with status 2."""


class CorpusError(UserError):
    """A corpus folder or table that cannot be used."""


class ClipError(Exception):
    """One clip that cannot be used; `reason` is a short word for counting."""

    def __init__(self, reason: str, detail: str = ""):
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail
