"""The errors that a person can put right; the command line prints them without a traceback."""

from __future__ import annotations


class UserError(Exception):
    """What was asked for cannot be done; the message says why, and what to do."""


class SuiteError(UserError, ValueError):
    """A suite, one of its keys or values, or its output directory."""


class TrainingError(UserError, RuntimeError):
    """A run that cannot go on."""


class DivergenceError(TrainingError):
    """A run whose loss is not finite."""
