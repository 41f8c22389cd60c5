"""Errors that a user can act on: one line that says what is wrong and what would be right."""

import errno

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


def is_disk_error(error: BaseException | None) -> bool:
    """Tell whether an error, or its cause, is the disk's: full, over quota, read-only."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (
            errno.ENOSPC,
            errno.EDQUOT,
            errno.EROFS,
            errno.EFBIG,
        ):
            return True
        text = str(error)
        if any(
            word in text for word in ("No space left", "RESOURCE_EXHAUSTED", "Disk quota", "File too large")
        ):
            return True
        error = error.__cause__ or error.__context__
    return False


def reason(error: BaseException) -> str:
    """The first words of a disk error."""
    return "no space left on the disk" if "No space" in str(error) else str(error).splitlines()[0][:120]
