"""Class books of a workspace: a working copy for editing, and versions, one of which is published.

The detector, the rounds and the pre-annotations use the published version; changes of ``classes.yaml`` take
effect when they are published.
"""

from __future__ import annotations

import os
import pwd
from pathlib import Path

from dsmoe_core.atomic import atomic_write
from dsmoe_core.errors import ClassBookError
from pipelines.settings.detector import TextSettings
from pipelines.workspace.token_limit import truncation_check
from prompts.book_diff import BookDiff, book_diff
from prompts.class_book import ClassBook, read_book_text
from prompts.evaluation_report import TextEvaluationReport
from prompts.store import ClassBookStore, Version, VersionEvent

FIRST = "the first one"
"""Message and reason of the version that a new workspace starts with."""
PUBLISHED, WORKING = "published", "working"
"""Names of the published version and of the working copy, where a version is expected."""


class ClassBooks:
    """The class books of one workspace.

    Args:
        workspace: its folder.
        text: the text encoder that embeds the descriptions.
    """

    def __init__(self, workspace: Path, text: TextSettings) -> None:
        self._workspace = workspace
        self._text = text
        self.file = workspace / "classes.yaml"
        self.store = ClassBookStore(workspace / "class_books.sqlite")

    def published(self) -> ClassBook:
        """The published class book.

        Raises:
            ClassBookError: no version is published.
            WorkspaceError: the versions cannot be read.
        """
        return self._published().book

    def published_version(self) -> str:
        """The id of the published version; faster than parsing the book.

        Raises:
            ClassBookError, WorkspaceError: as ``published``.
        """
        return self._published().id

    def _published(self) -> Version:
        version = self.store.published()
        if version is None:
            raise ClassBookError(f"{self.store.path} has no published version", "Restore it from a copy.")
        return version

    def working(self) -> ClassBook:
        """The working copy, ``classes.yaml``.

        Raises:
            ClassBookError: it is missing or wrong.
        """
        return ClassBook.load(self.file)

    def lookup(self, name: str) -> ClassBook:
        """A class book by name.

        Args:
            name: ``published``, ``working``, or the first digits of a version.

        Raises:
            ClassBookError: there is none of this name.
        """
        if name == WORKING:
            return self.working()
        return self.published() if name == PUBLISHED else self.store.version(name).book

    def publish_initial(self, book: ClassBook) -> None:
        """Publish the first book of a new workspace, in place of one that an interrupted run published."""
        user = current_user()
        version = self.store.save(book.as_yaml(), message=FIRST, author=user)
        earlier = self.store.published()
        self.store.publish(version.id, over=earlier and earlier.id, author=user, force_reason=FIRST)

    def save(self, message: str, author: str) -> Version:
        """Save the working copy as a version.

        Raises:
            ClassBookError: it is missing or wrong, or the text encoder would truncate a description.
        """
        text, _ = self._checked_working_copy()
        return self.store.save(text, message=message, author=author)

    def publish(
        self,
        name: str | None,
        *,
        author: str,
        report: TextEvaluationReport | None = None,
        force_reason: str | None = None,
        over: str | None = None,
    ) -> tuple[VersionEvent, BookDiff | None]:
        """Publish a version.

        A changed list of classes needs a report like any other change: the evaluation compares the classes
        that both books have. If no model was trained with the new classes yet, a person gives a reason.

        Args:
            name: first digits of the version; None: the working copy, which is saved unless it is refused.
            report: evaluation of the version against the one that it replaces.
            force_reason: why it is published without a report.
            over: the version that it replaces; by default the one that the report compares with, else the one
                that was published when the version was saved.

        Returns:
            The event that published the version, and what changed by it; None if it was published already.

        Raises:
            ClassBookError: see ``ClassBookStore.publish``.
        """
        before = self.store.published()
        if name is None:
            text, book = self._checked_working_copy()
        else:
            text, book = None, self.store.version(name).book
        if over is not None:
            over = self.store.version(over).id
        elif report is not None and report.book == book.version:
            over = report.against
        else:
            parents = {version.id: version.parent for version in self.store.versions()}
            over = parents.get(book.version, before and before.id)
        event = self.store.publish(
            book.version, over=over, author=author, report=report, force_reason=force_reason, text=text
        )
        if before is None or before.id == event.version:
            return event, None
        return event, book_diff(before.book, book)

    def rollback(self, name: str | None, *, author: str, reason: str) -> tuple[VersionEvent, bool]:
        """Publish an earlier published version again.

        ``classes.yaml`` is reset too if it is byte for byte the replaced version: no edits are lost then.

        Args:
            name: first digits of the version; None: the one that was published before.

        Returns:
            The event, and whether ``classes.yaml`` was reset.

        Raises:
            ClassBookError: see ``ClassBookStore.rollback``.
        """
        replaced = self.store.published()
        target = None if name is None else self.store.version(name).id
        event = self.store.rollback(target, over=replaced and replaced.id, author=author, reason=reason)
        unedited = (
            replaced is not None and replaced.id != event.version and _has_text(self.file, replaced.text)
        )
        if unedited:
            atomic_write(self.file, self.store.version(event.version).text)
        return event, unedited

    def checkout(self, name: str, to: Path | None = None, *, force: bool = False) -> tuple[Version, bool]:
        """Write a version to ``classes.yaml`` or another file, byte for byte as it was saved.

        Args:
            name: ``published``, or the first digits of a version.
            to: another file.
            force: overwrite content that is not in any version.

        Returns:
            The version, and whether the file changed.

        Raises:
            ClassBookError: there is no such version, or the file's content would be lost.
            PrerequisiteError: the disk is full.
        """
        version = self._published() if name == PUBLISHED else self.store.version(name)
        path = to or self.file
        if path.is_dir():
            raise ClassBookError(f"{path} is a folder; expected a file", "Name the file to write.")
        if _has_text(path, version.text):
            return version, False
        if path.is_file() and not force:
            self._refuse_to_overwrite(path)
        atomic_write(path, version.text)
        return version, True

    def _checked_working_copy(self) -> tuple[str, ClassBook]:
        """Text and book of ``classes.yaml``; the text encoder truncates none of its descriptions."""
        text = read_book_text(self.file)
        return text, ClassBook.parse(text, str(self.file), check_length=truncation_check(self._text))

    def _refuse_to_overwrite(self, path: Path) -> None:
        """Refuse if the file's content could not be restored from a version.

        Raises:
            ClassBookError: the file is not byte for byte one of the versions.
        """
        versions = self.store.versions()
        if any(_has_text(path, version.text) for version in versions):
            return
        try:
            same_content = ClassBook.load(path).version in {version.id for version in versions}
        except ClassBookError:
            same_content = False
        if same_content:  # saving it would not make a new version
            raise ClassBookError(
                f"{path} has comments or an order of lines that no version has",
                "Keep a copy of it, then check out with --force.",
            )
        raise ClassBookError(
            f"{path} has content that is in no version and would be lost",
            "Save it with `dsmoe classes save -m MESSAGE`, or check out with --force.",
        )

    def unpublished_note(self) -> str | None:
        """One line saying that the working copy differs from the published version; None if it does not."""
        published = self.published()
        try:
            working = self.working()
        except ClassBookError as error:
            return f"classes.yaml cannot be used, version {published.version} stays in use: {error}"
        if working.version == published.version:
            return None
        here = f"--workspace {self._workspace}"
        return (
            f"classes.yaml differs from version {published.version}, which is published and in use: see "
            f"`dsmoe classes diff {here}`, then "
            f"`dsmoe classes evaluate working {here} --json evaluation.json` and "
            f"`dsmoe classes publish {here} --report evaluation.json`"
        )


def _has_text(path: Path, text: str) -> bool:
    return path.is_file() and path.read_bytes() == text.encode("utf-8")


def current_user() -> str:
    """The name of the user that runs this process."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"user {os.getuid()}"
