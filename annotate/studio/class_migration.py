"""Gives a project of the real server other classes, without ever orphaning what people drew.

The order is such that a kill at any moment leaves a page that has every class in use, and the next run goes
on: the new classes come first, then annotations and pre-annotations are rewritten, and only then the old
names go.
"""

from __future__ import annotations

from annotate.studio.api import Api
from annotate.studio.class_change import ClassChange
from annotate.studio.convert import Json
from annotate.studio.label_config import label_config
from annotate.studio.task_query import EVERYTHING, query_tasks
from dsmoe_core.progress import CountCallback
from dsmoe_core.schema import ClassText, Vocabulary


def migrate(
    api: Api, project: int, change: ClassChange, vocabulary: Vocabulary, progress: CountCallback | None = None
) -> None:
    """Change a project's classes as planned.

    Args:
        change: with what it touches counted.

    Raises:
        StudioError: annotations, or drafts of people who work right now, use a class that would go.
    """
    change.check()
    if change.renamed:
        before = tuple(ClassText(old, f"now called {new}") for old, new in change.renamed.items())
        _set(api, project, label_config(Vocabulary((*vocabulary.classes, *before))))
    if change.obsolete:
        _rewrite(api, project, change, progress)
    config = label_config(vocabulary)
    # The server does not ask itself before it changes: it would leave annotations with a class that is no
    # more. What it counts by goes stale as annotations change, so it is made to count again.
    what = f"change the classes of project {project}"
    api.request(what, "POST", f"api/projects/{project}/summary/reset/")
    api.request(what, "POST", f"api/projects/{project}/validate/", body={"label_config": config})
    _set(api, project, config)


def _set(api: Api, project: int, config: str) -> None:
    with api.client(f"change the classes of project {project}") as sdk:
        sdk.projects.update(project, label_config=config)


def _rewrite(api: Api, project: int, change: ClassChange, progress: CountCallback | None) -> None:
    """Bring annotations and pre-annotations under the new names.

    The server stamps what is changed: annotations of one task are changed in the order of their stamps, so
    that the last one stays the last. Pre-annotations that were answered keep a removed class, as a record.
    """
    total = sum(change.annotations.values()) + sum(change.pre_annotations.values())
    done = 0
    for row in query_tasks(api, project, EVERYTHING):
        for kind in ("annotations", "predictions"):
            drop = kind == "predictions" and not row["annotations"]
            for one in sorted(row[kind], key=lambda one: str(one["updated_at"])):
                if change.rewrite(one["result"], drop=drop) is not None:
                    _rewrite_one(api, kind, one, change, drop)
                    done += 1
                    if progress:
                        progress(min(done, total), total)


def _rewrite_one(api: Api, kind: str, one: Json, change: ClassChange, drop: bool) -> None:
    """Rewrite one annotation or set of pre-annotations as it is now."""
    what, path = f"rewrite {kind[:-1]} {one['id']}", f"api/{kind}/{one['id']}/"
    if kind == "annotations":  # its annotator may have changed it since the page of tasks was read
        one = api.request(what, "GET", path)
    after = change.rewrite(one["result"], drop=drop)
    if after is not None:
        body: Json = {"result": after}
        api.request(what, "PATCH", path, body=body)
