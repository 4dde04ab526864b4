"""Promotion, refusal and rollback of models by a person; a rollback covers the class book too."""

from __future__ import annotations

from typing import NamedTuple

from pipelines.workspace.class_books import current_user
from pipelines.workspace.workspace import Workspace
from prompts.book_diff import book_diff


class Rollback(NamedTuple):
    """What a rollback put into use.

    Attributes:
        model: the champion.
        class_book: the published version.
        replaced_book: the version that was published before; None if it is the same.
        class_list_changed: whether the two versions have different classes.
        file_reset: whether ``classes.yaml`` was reset to the version.
    """

    model: str
    class_book: str
    replaced_book: str | None = None
    class_list_changed: bool = False
    file_reset: bool = False


def promote_by_hand(workspace: Workspace, model: str, reason: str) -> None:
    """Make a model champion, such as a held candidate; recorded with the user's name.

    Raises:
        ModelError: there is no such model.
    """
    book = workspace.class_books.published_version()
    workspace.registry.promote(model, reason, class_book=book, author=current_user())


def refuse_by_hand(workspace: Workspace, model: str, reason: str) -> None:
    """Refuse a candidate, such as a held one; recorded with the user's name.

    Raises:
        ModelError: there is no such model, or it is the champion.
    """
    workspace.registry.refuse(model, reason, author=current_user())


def rollback_champion(workspace: Workspace, reason: str, *, keep_class_book: bool = False) -> Rollback:
    """Make the previous champion champion again, with the class book that it was promoted with.

    The class book is published first: if the process is killed in between, the same command completes the
    rollback.

    Args:
        keep_class_book: leave the published class book as it is.

    Raises:
        ModelError: there is no previous champion, or its files are gone.
        ClassBookError: the class book was retired, or was never published.
    """
    registry, books = workspace.registry, workspace.class_books
    model, published = registry.previous_champion(), books.published()
    wanted = registry.promoted_with(model)
    if keep_class_book or wanted == published.version:
        registry.rollback(reason, author=current_user())
        return Rollback(model, published.version)
    restored = books.lookup(wanted)
    _, file_reset = books.rollback(
        wanted, author=current_user(), reason=f"rollback to model {model}: {reason}"
    )
    workspace.reload_class_book()
    registry.rollback(reason, author=current_user())
    changed = book_diff(published, restored).class_list_changed
    return Rollback(model, wanted, published.version, changed, file_reset)
