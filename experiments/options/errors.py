"""Errors of the command line."""


class UsageError(Exception):
    """A mistake on the command line, in one line."""
