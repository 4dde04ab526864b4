"""The class books of a workspace: the working copy that people edit, and the versions, one of them published.

The detector, rounds, pre-annotations and models go by the published one; ``classes.yaml`` counts once it is
published. A workspace from before there were versions has its ``classes.yaml`` published when it is first
written to.
"""

from __future__ import annotations

import os
import pwd
from pathlib import Path

from dsmoe_core.atomic import atomic_write
from dsmoe_core.errors import ClassBookError
from pipelines.settings import TextSettings
from pipelines.workspace.token_limit import truncation_check
from prompts.book_diff import BookDiff, book_diff
from prompts.class_book import ClassBook, read_book_text
from prompts.evaluation_report import TextEvaluationReport
from prompts.store import ClassBookStore, Version, VersionEvent

FIRST = "the first one"
PUBLISHED, WORKING = "published", "working"
"""What the version in use and ``classes.yaml`` are called where versions are named."""


class ClassBooks:
    """The class books of one workspace.

    Args:
        workspace: its folder.
        text: which encoder reads the books.
    """

    def __init__(self, workspace: Path, text: TextSettings) -> None:
        self._workspace = workspace
        self._text = text
        self.file = workspace / "classes.yaml"
        self.store = ClassBookStore(workspace / "class_books.sqlite")

    def published(self) -> ClassBook:
        """The book in use; ``classes.yaml`` in a workspace that has not published any yet.

        Raises:
            ClassBookError: it is damaged. WorkspaceError: the versions cannot be read.
        """
        version = self.store.published()
        return ClassBook.load(self.file) if version is None else version.book

    def published_version(self) -> str:
        """Which book is in use; quicker than reading it."""
        version = self.store.published()
        return self.published().version if version is None else version.id

    def working(self, *, whole: bool = False) -> ClassBook:
        """``classes.yaml`` as it is now.

        Args:
            whole: see to it, too, that the text encoder reads every text to its end.

        Raises:
            ClassBookError: it is missing or wrong.
        """
        return ClassBook.load(self.file, check_length=truncation_check(self._text) if whole else None)

    def lookup(self, name: str) -> ClassBook:
        """A book by the first digits of its version, or ``published`` or ``working``.

        Raises:
            ClassBookError: there is none.
        """
        if name == WORKING:
            return self.working()
        return self.published() if name == PUBLISHED else self.store.version(name).book

    def publish_first(self, author: str | None = None) -> None:
        """Publish ``classes.yaml`` where nothing is published yet; it needs no judge.

        Raises:
            ClassBookError: it is missing or wrong.
        """
        if self.store.published() is None:
            self.working()  # what is wrong in it is told by its file and line
            version = self.store.save(
                read_book_text(self.file), message=FIRST, author=author or current_user()
            )
            self.store.publish(version.id, over=None, author=author or current_user(), force_reason=FIRST)

    def publish_initial(self, book: ClassBook) -> None:
        """Publish the first book of a new workspace, also where a run that was killed began with another."""
        version = self.store.save(book.as_yaml(), message=FIRST, author=current_user())
        now = self.store.published()
        self.store.publish(version.id, over=now and now.id, author=current_user(), force_reason=FIRST)

    def save(self, message: str, author: str) -> Version:
        """Make a version of ``classes.yaml``.

        Raises:
            ClassBookError: it is missing or wrong, or the text encoder would cut a text.
        """
        self.publish_first(author)
        text, _ = self._whole()
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
        """Publish a version, by default ``classes.yaml``, which becomes one unless it is refused.

        A change of the list of classes is published as any other: a judge compares the classes that both
        books have, and where no model knows the new ones yet a person gives the reason.

        Args:
            over: what it is meant to replace; by default what the report compares with, or else what was
                published when the version was saved.

        Returns:
            The act that put it in use, and what changed by it; None where it was in use already.

        Raises:
            ClassBookError: see ``ClassBookStore.publish``.
        """
        if name is None:
            self.publish_first(author)
        before = self.store.published()
        text, book = self._whole() if name is None else (None, self.store.version(name).book)
        if over is not None:
            over = self.store.version(over).id
        elif report is not None and report.book == book.version:
            over = report.against
        else:
            saved = {version.id: version.parent for version in self.store.versions()}
            over = saved.get(book.version, before and before.id)
        act = self.store.publish(
            book.version, over=over, author=author, report=report, force_reason=force_reason, text=text
        )
        if before is None or before.id == act.version:
            return act, None
        return act, book_diff(before.book, book)

    def rollback(self, name: str | None, *, author: str, reason: str) -> tuple[VersionEvent, bool]:
        """Put an earlier published version back.

        ``classes.yaml`` goes back too where it is, to the letter, the version that is left: then nothing of
        anybody's is lost.

        Returns:
            The act, and whether ``classes.yaml`` went back.

        Raises:
            ClassBookError: see ``ClassBookStore.rollback``.
        """
        left = self.store.published()
        target = None if name is None else self.store.version(name).id
        act = self.store.rollback(target, over=left and left.id, author=author, reason=reason)
        follows = left is not None and left.id != act.version and _is(self.file, left.text)
        if follows:
            atomic_write(self.file, self.store.version(act.version).text)
        return act, follows

    def checkout(self, name: str, to: Path | None = None, *, force: bool = False) -> tuple[Version, bool]:
        """Write a version into ``classes.yaml``, or into another file, to the letter as it was saved.

        Args:
            name: as ``named``.
            force: also over what is in no version.

        Returns:
            The version, and whether the file is another one now.

        Raises:
            ClassBookError: there is no such version, or the file holds what would be lost.
            PrerequisiteError: the disk is full.
        """
        version = self.store.published() if name == PUBLISHED else self.store.version(name)
        if version is None:
            raise ClassBookError("nothing is published yet", "Save a version with `dsmoe classes save`.")
        path = to or self.file
        if path.is_dir():
            raise ClassBookError(f"{path} is a folder; expected a file", "Name the file to write.")
        if _is(path, version.text):
            return version, False
        if path.is_file() and not force:
            self._refuse_loss(path)
        atomic_write(path, version.text)
        return version, True

    def _whole(self) -> tuple[str, ClassBook]:
        """The text of ``classes.yaml``, every description of which the text encoder reads to its end."""
        text = read_book_text(self.file)
        return text, ClassBook.parse(text, str(self.file), check_length=truncation_check(self._text))

    def _refuse_loss(self, path: Path) -> None:
        """Let only what can be brought back be written over.

        Raises:
            ClassBookError: the file is not, to the letter, one of the versions.
        """
        versions = self.store.versions()
        if any(_is(path, version.text) for version in versions):
            return
        try:
            known = ClassBook.load(path).version in {version.id for version in versions}
        except ClassBookError:
            known = False
        if known:  # saving would say that it is a version already
            raise ClassBookError(
                f"{path} has comments or an order of lines that no version has",
                "Keep a copy of it, then check out with --force.",
            )
        raise ClassBookError(
            f"{path} holds what is in no version and would be lost",
            "Save it with `dsmoe classes save -m MESSAGE`, or check out with --force.",
        )

    def unpublished_note(self) -> str | None:
        """One line on ``classes.yaml`` where it is not what is published; None where it is."""
        published = self.published()
        try:
            working = self.working()
        except ClassBookError as error:
            return f"classes.yaml cannot be used, version {published.version} goes on: {error}"
        if working.version == published.version:
            return None
        here = f"--workspace {self._workspace}"
        return (
            f"classes.yaml differs from version {published.version}, which is published and in use: see "
            f"`dsmoe classes diff {here}`, then "
            f"`dsmoe classes evaluate working {here} --json evaluation.json` and "
            f"`dsmoe classes publish {here} --report evaluation.json`"
        )


def _is(path: Path, text: str) -> bool:
    return path.is_file() and path.read_bytes() == text.encode("utf-8")


def current_user() -> str:
    """The name of the person who runs this."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"user {os.getuid()}"
