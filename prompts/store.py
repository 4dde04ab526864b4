"""The versions of a class book: immutable, and one of them is published. One small SQLite file.

Whoever publishes says which version they mean to replace; where another one has been published since, they
are told by whom and when, and nothing happens.
"""

from __future__ import annotations

from pathlib import Path

from dsmoe_core.errors import ClassBookError
from prompts.class_book import ClassBook
from prompts.evaluation_report import TextEvaluationReport
from prompts.store_file import (
    Act,
    State,
    Version,
    acts,
    add_act,
    add_version,
    in_use,
    need,
    reading,
    version_ids,
    version_of,
    writing,
)

__all__ = ["Act", "ClassBookStore", "State", "Version"]
_FORCE = "or publish it with --force REASON, which is recorded."


class ClassBookStore:
    """The versions in one file, which is made when the first one is saved.

    Every method is one transaction, and raises:
        WorkspaceError: the file is no database of ours. PrerequisiteError: the disk is full.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def save(self, text: str, *, message: str, author: str) -> Version:
        """Make a version of this YAML; content that is a version already stays the version that it is.

        Raises:
            ClassBookError: the text is no class book, or the message or author is empty.
        """
        book = ClassBook.parsed(text, "to be saved")
        need(message, "message", "Say in a few words what changed.")
        need(author, "author", "Give a name.")
        with writing(self.path) as db:
            add_version(db, book.version, message, author, text)
            return version_of(db, book.version)

    def versions(self) -> list[Version]:
        """All, oldest first."""
        with reading(self.path) as db:
            return [version_of(db, version) for version in version_ids(db)]

    def version(self, name: str) -> Version:
        """The version whose id begins like this.

        Raises:
            ClassBookError: there is none, or more than one.
        """
        with reading(self.path) as db:
            known = version_ids(db)
            found = [version for version in known if name and version.startswith(name)]
            if len(found) != 1:
                problem = "begins several versions" if found else "is no version of this class book"
                latest = ", ".join(known[-5:]) or "none yet"
                raise ClassBookError(
                    f"{name!r} {problem}; the latest are: {latest}", "See `dsmoe classes log`."
                )
            return version_of(db, found[0])

    def published(self) -> Version | None:
        """The version in use; None before the first."""
        with reading(self.path) as db:
            act = in_use(db)
            return version_of(db, act.version) if act else None

    def history(self) -> list[Act]:
        """What people did, oldest first."""
        with reading(self.path) as db:
            return acts(db)

    def publish(
        self,
        version: str,
        *,
        over: str | None,
        author: str,
        report: TextEvaluationReport | None = None,
        force_reason: str | None = None,
        text: str | None = None,
    ) -> Act:
        """Put a version in the place of the one in use; does nothing where it is in use already.

        Args:
            version: id of a saved one, or that of the text.
            over: id of the one that it is meant to replace; None: it is the first.
            report: a judge's, on this version against the one in use, that lets it be published.
            force_reason: why it is published without; recorded. A retired version needs one.
            text: its YAML, which becomes a version by this; where it is refused, none is made.

        Returns:
            The act that put it in use, this one or an earlier one.

        Raises:
            ClassBookError: another one has been published since; the message says by whom and when.
            ClassBookError: there is neither a fitting report nor a reason, or no such version.
        """
        with writing(self.path) as db:
            if text is not None:
                add_version(db, version, "saved to be published", author, text)
            chosen, current = version_of(db, version), in_use(db)
            if current is not None and current.version == chosen.id:
                return current
            if chosen.state == "retired" and force_reason is None:
                raise ClassBookError(f"version {chosen.id} is retired", f"Publish another one, {_FORCE}")
            _refuse_overtaken(chosen.id, over, current)
            named = chosen.id if text is None else "working"  # where it is refused, it is no version
            reason = force_reason if force_reason is not None else _fit(chosen, report, over, named).reason
            forced = force_reason is not None
            return add_act(
                db, "publish", chosen.id, author=author, reason=reason, forced=forced, report=report
            )

    def rollback(self, version: str | None = None, *, over: str | None, author: str, reason: str) -> Act:
        """Put a version that was published before back in its place; it needs no report.

        Args:
            version: id of one that was published; None: the one before the one in use that is not retired.
            over: id of the one in use, as the caller knows it.

        Raises:
            ClassBookError: there is none, or another one has been published since.
        """
        with writing(self.path) as db:
            current, done = in_use(db), acts(db)
            if version is not None and current is not None and current.version == version:
                return current
            _refuse_overtaken(version, over, current)
            before = (v for v in _below(done) if version_of(db, v).state != "retired")
            target = version or next(before, None)
            if target is None:
                raise ClassBookError(
                    f"no version was published before {over}",
                    "Publish another one with `dsmoe classes publish`.",
                )
            state = version_of(db, target).state
            if state != "published":
                raise ClassBookError(
                    f"version {target} is {state}; expected one that was published",
                    "Publish it with `dsmoe classes publish`.",
                )
            return add_act(db, "rollback", target, author=author, reason=reason)

    def retire(self, version: str, *, author: str, reason: str) -> Act:
        """Withdraw a version: it is not published on a report any more, and rolling back passes it by.

        Raises:
            ClassBookError: there is no such version, or it is in use.
        """
        with writing(self.path) as db:
            chosen, current = version_of(db, version), in_use(db)
            if current is not None and current.version == chosen.id:
                raise ClassBookError(
                    f"version {chosen.id} is published", "Publish another one first, or roll back."
                )
            if chosen.state == "retired":
                return next(act for act in reversed(acts(db)) if act.version == chosen.id)
            return add_act(db, "retire", chosen.id, author=author, reason=reason)


def _below(done: list[Act]) -> list[str]:
    """Versions in use before the present one, the nearest first; a rollback takes back what came after."""
    stack: list[str] = []
    for act in done:
        if act.action == "rollback" and act.version in stack:
            del stack[len(stack) - stack[::-1].index(act.version) :]
        elif act.action != "retire":
            stack.append(act.version)
    return [version for version in stack[::-1] if version != stack[-1]]


def _refuse_overtaken(version: str | None, over: str | None, current: Act | None) -> None:
    """Compare before the set.

    Args:
        version: id of what is to be put in use; None: the one before.

    Raises:
        ClassBookError: what is in use is not what the caller believes.
    """
    now = current.version if current else None
    if now == over:
        return
    look = f"dsmoe classes diff published {version}" if version else "dsmoe classes log"
    knowingly = f"; or replace it knowingly with `dsmoe classes publish --over {now}`" if now else ""
    raise ClassBookError(
        f"{version or 'the version before it'} was to replace {over or 'nothing'}, "
        f"but {current or 'nothing is published'}",
        f"See it with `{look}`, and bring your changes on top of "
        f"`dsmoe classes checkout published`{knowingly}.",
    )


def _fit(
    chosen: Version, report: TextEvaluationReport | None, current: str | None, named: str
) -> TextEvaluationReport:
    """The report, if it lets this version be published in the place of the current one.

    Args:
        named: what the judge knows the version by.

    Raises:
        ClassBookError: it does not, or there is none.
    """
    if report is None:
        raise ClassBookError(
            f"version {chosen.id} has no judge's report",
            f"Make one with `dsmoe classes judge {named} --json FILE` and give it with --report, {_FORCE}",
        )
    if report.book != chosen.id:
        raise ClassBookError(
            f"the report judges version {report.book}; expected one on {chosen.id}",
            f"Judge this one with `dsmoe classes judge`, {_FORCE}",
        )
    if report.against != current:
        raise ClassBookError(
            f"the report compares with {report.against}; expected {current or 'none'}, which is published",
            f"Judge it anew with `dsmoe classes judge`, {_FORCE}",
        )
    if not report.lets_publish:
        said = report.reason.removeprefix(f"{report.verdict}: ")
        raise ClassBookError(
            f"the report's verdict on {chosen.id} is {report.verdict!r}: {said}",
            f"Improve the words, {_FORCE}",
        )
    return report
