"""Version store of a class book: immutable versions, one of which is published, in one SQLite file.

A publication names the version that it replaces. If another version was published in the meantime, it is
refused, and the message says who published which version and when.
"""

from __future__ import annotations

from pathlib import Path

from dsmoe_core.errors import ClassBookError
from prompts.class_book import ClassBook
from prompts.evaluation_report import TextEvaluationReport
from prompts.store_file import (
    State,
    Version,
    VersionEvent,
    add_event,
    add_version,
    publishing_event,
    read_events,
    read_transaction,
    read_version,
    require_text,
    version_ids,
    write_transaction,
)

__all__ = ["ClassBookStore", "State", "Version", "VersionEvent"]
_FORCE = "or publish it with --force REASON, which is recorded."


class ClassBookStore:
    """The versions in one file, which is created when the first version is saved.

    Every method is one transaction, and raises:
        WorkspaceError: the file is not a version database. PrerequisiteError: the disk is full.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def save(self, text: str, *, message: str, author: str) -> Version:
        """Save this YAML text as a version; if its content is a version already, that version is returned.

        Raises:
            ClassBookError: the text is not a class book, or the message or author is empty.
        """
        book = ClassBook.parse(text, "to be saved")
        require_text(message, "message", "Say in a few words what changed.")
        require_text(author, "author", "Give a name.")
        with write_transaction(self.path) as db:
            add_version(db, book.version, message, author, text)
            return read_version(db, book.version)

    def versions(self) -> list[Version]:
        """All versions, oldest first."""
        with read_transaction(self.path) as db:
            return [read_version(db, version) for version in version_ids(db)]

    def version(self, prefix: str) -> Version:
        """The version whose id begins with this prefix.

        Raises:
            ClassBookError: there is none, or more than one.
        """
        with read_transaction(self.path) as db:
            ids = version_ids(db)
            matches = [version for version in ids if prefix and version.startswith(prefix)]
            if len(matches) != 1:
                problem = "begins several versions" if matches else "is not a version of this class book"
                latest = ", ".join(ids[-5:]) or "none yet"
                raise ClassBookError(
                    f"{prefix!r} {problem}; the latest are: {latest}", "See `dsmoe classes log`."
                )
            return read_version(db, matches[0])

    def published(self) -> Version | None:
        """The published version; None before the first publication."""
        with read_transaction(self.path) as db:
            event = publishing_event(db)
            return read_version(db, event.version) if event else None

    def history(self) -> list[VersionEvent]:
        """All publications, rollbacks and retirements, oldest first."""
        with read_transaction(self.path) as db:
            return read_events(db)

    def publish(
        self,
        version: str,
        *,
        over: str | None,
        author: str,
        report: TextEvaluationReport | None = None,
        force_reason: str | None = None,
        text: str | None = None,
    ) -> VersionEvent:
        """Publish a version in place of the published one; does nothing if it is published already.

        Args:
            version: id of a saved version, or of the text.
            over: id of the version that it replaces; None: it is the first.
            report: evaluation of this version against the published one, with a verdict that allows
                publishing.
            force_reason: why it is published without a report; recorded. A retired version needs one.
            text: YAML text of a version that is not saved yet; it is saved only if it is published.

        Returns:
            The event that published it, this one or an earlier one.

        Raises:
            ClassBookError: another version was published in the meantime; the message says by whom and when.
            ClassBookError: there is neither a suitable report nor a reason, or there is no such version.
        """
        with write_transaction(self.path) as db:
            if text is not None:
                add_version(db, version, "saved to be published", author, text)
            chosen, current = read_version(db, version), publishing_event(db)
            if current is not None and current.version == chosen.id:
                return current
            if chosen.state == "retired" and force_reason is None:
                raise ClassBookError(f"version {chosen.id} is retired", f"Publish another one, {_FORCE}")
            _check_current(chosen.id, over, current)
            if force_reason is None:
                # The text is not saved if it is refused, so the message must not name its id.
                name = chosen.id if text is None else "working"
                reason = _check_report(chosen, report, over, name).reason
            else:
                reason = force_reason
            return add_event(
                db,
                "publish",
                chosen.id,
                author=author,
                reason=reason,
                forced=force_reason is not None,
                report=report,
            )

    def rollback(
        self, version: str | None = None, *, over: str | None, author: str, reason: str
    ) -> VersionEvent:
        """Put a formerly published version into use again, without an evaluation report.

        Args:
            version: id of that version; None: the most recent formerly published version that is not retired.
            over: id of the version to replace, as the caller last read it.

        Raises:
            ClassBookError: there is no such version, or another one was published in the meantime.
        """
        with write_transaction(self.path) as db:
            current, events = publishing_event(db), read_events(db)
            if version is not None and current is not None and current.version == version:
                return current
            _check_current(version, over, current)
            earlier = (v for v in _earlier_versions(events) if read_version(db, v).state != "retired")
            target = version or next(earlier, None)
            if target is None:
                raise ClassBookError(
                    f"no version was published before {over}",
                    "Publish another one with `dsmoe classes publish`.",
                )
            state = read_version(db, target).state
            if state != "published":
                raise ClassBookError(
                    f"version {target} is {state}; expected one that was published",
                    "Publish it with `dsmoe classes publish`.",
                )
            return add_event(db, "rollback", target, author=author, reason=reason)

    def retire(self, version: str, *, author: str, reason: str) -> VersionEvent:
        """Withdraw a version: a report no longer suffices to publish it, and a rollback skips it.

        Raises:
            ClassBookError: there is no such version, or it is published.
        """
        with write_transaction(self.path) as db:
            chosen, current = read_version(db, version), publishing_event(db)
            if current is not None and current.version == chosen.id:
                raise ClassBookError(
                    f"version {chosen.id} is published", "Publish another one first, or roll back."
                )
            if chosen.state == "retired":
                return next(e for e in reversed(read_events(db)) if e.version == chosen.id)
            return add_event(db, "retire", chosen.id, author=author, reason=reason)


def _earlier_versions(events: list[VersionEvent]) -> list[str]:
    """Versions published before the present one, latest first; a rollback removes those after its target."""
    stack: list[str] = []
    for event in events:
        if event.action == "rollback" and event.version in stack:
            del stack[len(stack) - stack[::-1].index(event.version) :]
        elif event.action != "retire":
            stack.append(event.version)
    return [version for version in stack[::-1] if version != stack[-1]]


def _check_current(version: str | None, over: str | None, current: VersionEvent | None) -> None:
    """Check that the published version is the one that the caller wants to replace.

    Args:
        version: id of the version to be published; None: the one before the published version.

    Raises:
        ClassBookError: another version is published.
    """
    published = current.version if current else None
    if published == over:
        return
    command = f"dsmoe classes diff published {version}" if version else "dsmoe classes log"
    replace = f"; or replace it with `dsmoe classes publish --over {published}`" if published else ""
    raise ClassBookError(
        f"{version or 'the version before it'} was to replace {over or 'nothing'}, "
        f"but {current or 'nothing is published'}",
        f"See the differences with `{command}`, and make your changes again after "
        f"`dsmoe classes checkout published`{replace}.",
    )


def _check_report(
    chosen: Version, report: TextEvaluationReport | None, current: str | None, name: str
) -> TextEvaluationReport:
    """The report, if it allows this version to be published in place of the current one.

    Args:
        name: of the version on the command line.

    Raises:
        ClassBookError: there is no report, it is on other versions, or its verdict does not allow publishing.
    """
    if report is None:
        raise ClassBookError(
            f"version {chosen.id} has no evaluation report",
            f"Make one with `dsmoe classes evaluate {name} --json FILE` and give it with --report, {_FORCE}",
        )
    if report.book != chosen.id:
        raise ClassBookError(
            f"the report evaluates version {report.book}; expected {chosen.id}",
            f"Evaluate this version with `dsmoe classes evaluate`, {_FORCE}",
        )
    if report.against != current:
        raise ClassBookError(
            f"the report compares with {report.against}; expected {current or 'none'}, which is published",
            f"Evaluate it again with `dsmoe classes evaluate`, {_FORCE}",
        )
    if not report.allows_publishing:
        reason = report.reason.removeprefix(f"{report.verdict}: ")
        raise ClassBookError(
            f"the report's verdict on {chosen.id} is {report.verdict!r}: {reason}",
            f"Improve the descriptions, {_FORCE}",
        )
    return report
