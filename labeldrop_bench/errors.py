"""The errors that a person can put right; the command line prints them without a traceback."""

from __future__ import annotations

import errno
from pathlib import Path

_FULL = "make space; the same command then goes on where this one stopped, and what is finished stays"
_CLOSED = "make it writable, or give another directory"
_REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), _FULL),
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), _CLOSED),
}


class UserError(Exception):
    """What was asked for cannot be done; the message says why, and what to do."""


class StorageError(UserError, OSError):
    """A file that cannot be written or read because of the place where it is; names it, and what to do."""


def storage_error(error: OSError, path: Path | str | None = None) -> StorageError | None:
    """What a person is told of a full disk or of a place that is not theirs to write to; None for any other error.

    Args:
        error: as the system gave it.
        path: of the file; None if the error names it.
    """
    remedy = _REMEDIES.get(error.errno or 0)
    return StorageError(f"{path or error.filename or 'a file'}: {error.strerror}: {remedy}") if remedy else None


class SuiteError(UserError, ValueError):
    """A suite, one of its keys or values, or its output directory."""


class TrainingError(UserError, RuntimeError):
    """A run that cannot go on."""


class DivergenceError(TrainingError):
    """A run whose loss is not finite."""


class FailedRunsError(TrainingError):
    """Some runs of a sweep failed; the others are done."""
