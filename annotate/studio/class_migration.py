"""Changes the classes of a Label Studio project without losing annotations.

The steps are ordered so that an interrupted migration can be run again: first the new classes are added,
then annotations and pre-annotations are rewritten, and only then the old names are removed. At every moment
the labelling config has every class in use.
"""

from __future__ import annotations

from annotate.studio.api import Api
from annotate.studio.class_change import ClassChange
from annotate.studio.convert import Json
from annotate.studio.label_config import label_config
from annotate.studio.task_query import ALL_FIELDS, query_tasks
from dsmoe_core.progress import CountCallback
from dsmoe_core.schema import ClassText, Vocabulary


def migrate(
    api: Api, project: int, change: ClassChange, vocabulary: Vocabulary, progress: CountCallback | None = None
) -> None:
    """Apply a class change to a project.

    Args:
        change: the change, with usage counts.
        vocabulary: the new classes.

    Raises:
        StudioError: annotations, or drafts of annotators at work, use a class that would be removed.
    """
    change.check()
    if change.renamed:
        old = tuple(ClassText(name, f"renamed to {new}") for name, new in change.renamed.items())
        _set_config(api, project, label_config(Vocabulary((*vocabulary.classes, *old))))
    if change.obsolete:
        _rewrite_tasks(api, project, change, progress)
    config = label_config(vocabulary)
    # The server does not validate a change of the config, which could leave annotations with an unknown
    # class. Validate first. The server validates against a summary, which must be recomputed.
    action = f"change the classes of project {project}"
    api.request(action, "POST", f"api/projects/{project}/summary/reset/")
    api.request(action, "POST", f"api/projects/{project}/validate/", body={"label_config": config})
    _set_config(api, project, config)


def _set_config(api: Api, project: int, config: str) -> None:
    with api.client(f"change the classes of project {project}") as sdk:
        sdk.projects.update(project, label_config=config)


def _rewrite_tasks(api: Api, project: int, change: ClassChange, progress: CountCallback | None) -> None:
    """Rename the classes in all annotations and pre-annotations.

    The server updates the timestamp of what is changed. Annotations of one task are changed in the order of
    their timestamps, so that the latest one stays the latest. Pre-annotations of annotated tasks keep a
    removed class as a record.
    """
    total = sum(change.annotations.values()) + sum(change.pre_annotations.values())
    done = 0
    for task in query_tasks(api, project, ALL_FIELDS):
        for kind in ("annotations", "predictions"):
            drop = kind == "predictions" and not task["annotations"]
            for item in sorted(task[kind], key=lambda item: str(item["updated_at"])):
                if change.rewrite(item["result"], drop=drop) is not None:
                    _rewrite_item(api, kind, item, change, drop)
                    done += 1
                    if progress:
                        progress(min(done, total), total)


def _rewrite_item(api: Api, kind: str, item: Json, change: ClassChange, drop: bool) -> None:
    """Rename the classes in one annotation or prediction, in its current state on the server."""
    action, path = f"rewrite {kind[:-1]} {item['id']}", f"api/{kind}/{item['id']}/"
    if kind == "annotations":  # the annotator may have changed it since the tasks were listed
        item = api.request(action, "GET", path)
    results = change.rewrite(item["result"], drop=drop)
    if results is not None:
        body: Json = {"result": results}
        api.request(action, "PATCH", path, body=body)
