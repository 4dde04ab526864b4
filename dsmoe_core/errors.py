"""The one exception tree. A message says the value, what was expected, and what to do.

::

    DsmoeError                      everything that is the world's fault, not a bug: one line, exit 2
    |-- SettingsError               a settings file, an option or an environment variable is wrong
    |-- WorkspaceError              the workspace is missing, half made, from another version, or busy
    |-- DataError                   what came in from outside cannot be used
    |   |-- FormatError             a file is not in the format it was given for
    |   |-- ImageError            one image cannot be read (goes to quarantine)
    |   |-- BoxError                one box is empty, not finite, or outside its image
    |   `-- ClassBookError          the class book is wrong or lacks a class
    |-- ModelError                  weights do not fit, a checkpoint is torn, no model was promoted yet
    |-- PrerequisiteError           a tool, package, file or disk space is missing; names the remedy
    `-- ServiceError                an outside service refused, hung or died
        |-- StudioError             Label Studio
        |-- ReviewError             FiftyOne or its database
        `-- LanguageModelError      the OpenAI-compatible server

Anything else that escapes is our own bug: the command line shows it with a traceback and exits 1.
"""

from __future__ import annotations

import errno

DISK_FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What the system says where a file finds no room: the disk, the user's share of it or a limit is reached."""


class DsmoeError(Exception):
    """Base of all errors that a user can act on.

    Args:
        problem: what is wrong, with the offending value and what was expected.
        remedy: one imperative sentence: what to do now.
    """

    exit_code = 2

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem, remedy)
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.problem.rstrip('.')}. {self.remedy}"


class SettingsError(DsmoeError):
    """A settings file, an option or an environment variable is wrong."""


class WorkspaceError(DsmoeError):
    """The workspace is missing, half made, from another version, or in use by another process."""


class DataError(DsmoeError):
    """What came in from outside cannot be used."""


class FormatError(DataError):
    """A file is not in the format it was given for."""


class ImageError(DataError):
    """One image cannot be read; it goes to quarantine and the rest goes on."""


class BoxError(DataError):
    """One box is empty, not finite, or outside its image."""


class ClassBookError(DataError):
    """The class book is wrong, or lacks a class that the data uses."""


class ModelError(DsmoeError):
    """Weights do not fit the network, a checkpoint is torn, or no model was promoted yet."""


class PrerequisiteError(DsmoeError):
    """A tool, package, file or disk space that we need is missing; the remedy says how to get it."""


class ServiceError(DsmoeError):
    """An outside service refused, hung or died."""


class StudioError(ServiceError):
    """Label Studio did not start, refused us or answered nonsense."""


class ReviewError(ServiceError):
    """FiftyOne or its database did not start or failed."""


class LanguageModelError(ServiceError):
    """The OpenAI-compatible server did not answer, or never with what was asked for."""
