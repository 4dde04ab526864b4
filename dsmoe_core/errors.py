"""Exceptions of dsmoe. Each message has the offending value, what was expected, and what to do.

::

    DsmoeError                  base: a problem that the user can solve; printed in one line, exit code 2
    |-- SettingsError           a settings file, command-line option or environment variable is wrong
    |-- WorkspaceError          the workspace is missing, incomplete, of another version, or locked
    |-- DataError               input data cannot be used
    |   |-- FormatError         a file does not have the expected format
    |   |-- ImageError          an image cannot be read (it is moved to quarantine)
    |   |-- BoxError            a box is empty, not finite, or outside its image
    |   `-- ClassBookError      the class book is wrong or lacks a class
    |-- ModelError              weights do not fit, a checkpoint is damaged, or there is no promoted model
    |-- PrerequisiteError       a tool, package, file or disk space is missing
    `-- ServiceError            an external service refused a request, timed out or stopped
        |-- StudioError         Label Studio
        |-- ReviewError         FiftyOne or its database
        `-- LanguageModelError  an OpenAI-compatible server

Any other exception that reaches the command line is a bug in dsmoe: it is shown with a traceback, exit code
1.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence

DISK_FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Error numbers of a write that fails for lack of space: disk full, quota exceeded, or file size limit."""


class DsmoeError(Exception):
    """Base class of all errors that a user can solve.

    Args:
        problem: what is wrong, with the offending value and what was expected.
        remedy: one imperative sentence that says what to do.
        details: further lines, printed below the message.
    """

    exit_code = 2

    def __init__(self, problem: str, remedy: str, *, details: Sequence[str] = ()) -> None:
        super().__init__(problem, remedy)
        self.problem = problem
        self.remedy = remedy
        self.details = tuple(details)

    def __str__(self) -> str:
        return f"{self.problem.rstrip('.')}. {self.remedy}"


class SettingsError(DsmoeError):
    """A settings file, a command-line option or an environment variable is wrong."""


class WorkspaceError(DsmoeError):
    """The workspace is missing, incomplete, of another version, or locked by another process."""


class WorkspaceBusyError(WorkspaceError):
    """Another process works on the workspace; it can be tried again when that process has ended."""


class DataError(DsmoeError):
    """Input data cannot be used."""


class FormatError(DataError):
    """A file does not have the expected format."""


class ImageError(DataError):
    """An image cannot be read. It is moved to quarantine and the other images are processed."""


class BoxError(DataError):
    """A box is empty, not finite, or outside its image."""


class ClassBookError(DataError):
    """The class book is wrong, or lacks a class that the data uses."""


class ModelError(DsmoeError):
    """Weights do not fit the network, a checkpoint is damaged, or there is no promoted model."""


class PrerequisiteError(DsmoeError):
    """A required tool, package, file or disk space is missing; the remedy says how to get it."""


class ServiceError(DsmoeError):
    """An external service refused a request, timed out or stopped."""


class StudioError(ServiceError):
    """Label Studio did not start, refused a request or sent an invalid response."""


class ReviewError(ServiceError):
    """FiftyOne or its database did not start or failed."""


class LanguageModelError(ServiceError):
    """The OpenAI-compatible server did not respond, or never with the requested content."""
