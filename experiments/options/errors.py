"""Errors of the command line."""


class UsageError(Exception):
    """A mistake on the command line; its message is one line."""
