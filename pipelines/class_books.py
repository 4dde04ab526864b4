"""The class books of a workspace: the working copy that people edit, and the versions, one of them published.

The detector, rounds, pre-labels and models go by the published one; ``classes.yaml`` counts once it is
published. A workspace from before there were versions has its ``classes.yaml`` published when it is first
written to.
"""

from __future__ import annotations

import os
import pwd
from pathlib import Path

from dsmoe_core.errors import ClassBookError
from pipelines.atomic import write_whole
from pipelines.settings import TextSettings
from pipelines.text_limit import cut_by
from prompts.book_diff import BookDiff, book_diff
from prompts.class_book import ClassBook, book_text
from prompts.judge_report import JudgeReport
from prompts.store import Act, ClassBookStore, Version

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
        return ClassBook.load(self.file, cut=cut_by(self._text) if whole else None)

    def named(self, name: str) -> ClassBook:
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
            version = self.store.save(book_text(self.file), message=FIRST, author=author or whoever())
            self.store.publish(version.id, over=None, author=author or whoever(), force_reason=FIRST)

    def begin_with(self, book: ClassBook) -> None:
        """Publish the first book of a new workspace, also where a run that was killed began with another."""
        version = self.store.save(book.as_yaml(), message=FIRST, author=whoever())
        now = self.store.published()
        self.store.publish(version.id, over=now and now.id, author=whoever(), force_reason=FIRST)

    def save(self, message: str, author: str) -> Version:
        """Make a version of ``classes.yaml``.

        Raises:
            ClassBookError: it is missing or wrong, or the text encoder would cut a text.
        """
        self.publish_first(author)
        text = book_text(self.file)
        ClassBook.parsed(text, str(self.file), cut=cut_by(self._text))
        return self.store.save(text, message=message, author=author)

    def publish(
        self,
        name: str | None,
        *,
        author: str,
        report: JudgeReport | None = None,
        force_reason: str | None = None,
        over: str | None = None,
    ) -> tuple[Act, BookDiff | None]:
        """Publish a version, by default ``classes.yaml``, which becomes one.

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
        before = self.store.published()
        version = self.save("saved to be published", author) if name is None else self.store.version(name)
        if over is not None:
            over = self.store.version(over).id
        elif report is not None and report.book == version.id:
            over = report.against
        else:
            over = version.parent
        act = self.store.publish(
            version.id, over=over, author=author, report=report, force_reason=force_reason
        )
        if before is None or before.id == act.version:
            return act, None
        return act, book_diff(before.book, version.book)

    def rollback(self, name: str | None, *, author: str, reason: str) -> tuple[Act, bool]:
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
        follows = left is not None and left.id != act.version and self._holds(left.text)
        if follows:
            write_whole(self.file, self.store.version(act.version).text)
        return act, follows

    def note(self) -> str | None:
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
            f"`dsmoe classes diff {here}`, then `dsmoe classes publish {here}`"
        )

    def _holds(self, text: str) -> bool:
        return self.file.is_file() and self.file.read_bytes() == text.encode("utf-8")


def whoever() -> str:
    """The name of the person who runs this."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"user {os.getuid()}"
