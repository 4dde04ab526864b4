"""Adds images and labels to the pool of an existing workspace; an interrupted run can be repeated.

An image that the workspace has already keeps its role, its name and, once it was sent out, the annotations of
Label Studio.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

from dsmoe_core.atomic import disk_full_as_error
from dsmoe_core.data.annotation_set import AnnotationSet
from dsmoe_core.data.image_folder import IngestResult, ingest_folder
from dsmoe_core.data.import_account import ImportAccount, LeftOutImage, Reason
from dsmoe_core.errors import DataError, SettingsError
from dsmoe_core.paths import check_output_folder
from dsmoe_core.progress import CountCallback
from dsmoe_core.schema import Harvest, LabelledImage
from pipelines.workspace.dataset_version import DatasetVersion
from pipelines.workspace.import_log import record_import
from pipelines.workspace.ingest import imported_harvest, match_labels, refuse_test_images
from pipelines.workspace.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Addition:
    """What is added to a workspace.

    Attributes:
        images: folder of images; those that the workspace has already are passed over.
        labels: of images in the folder; None for none.
        intensity_max: value of images with more than 8 bits that becomes white; None: the workspace's, or
            chosen from the images if the workspace has no such image so far.
        strict: refuse labels that are not taken completely.
    """

    images: Path
    labels: AnnotationSet | None = None
    intensity_max: int | None = None
    strict: bool = False


class AdditionResult(NamedTuple):
    """What was added.

    Attributes:
        ingest: all images of the folder.
        new_images: number of images that the workspace did not have.
        test_images: number of images of the folder that are in the test set, where they stay.
        new_labels: number of images that are labelled now and were not before.
        replaced_labels: names of the images whose imported labels were replaced by others.
        account: of the labels; None if none were given.
    """

    ingest: IngestResult
    new_images: int
    test_images: int
    new_labels: int = 0
    replaced_labels: tuple[str, ...] = ()
    account: ImportAccount | None = None


def add_to_workspace(
    workspace: Workspace, addition: Addition, *, progress: CountCallback | None = None
) -> AdditionResult:
    """Add images to the pool, and labels to images that were never sent out.

    Everything is checked before the first image or label is recorded.

    Args:
        progress: called with (images read, images in total).

    Raises:
        DataError: the folder has no image that can be used, or labels a test image.
        ClassBookError: the class book lacks a class of the labels.
        FormatError: labels are not taken completely, and that is required.
        SettingsError: the workspace's images were stored with another ``intensity_max``.
        WorkspaceError: another process holds the workspace.
        PrerequisiteError: the workspace cannot be written, or the disk is full.
    """
    check_output_folder(workspace.path)
    _check_classes(workspace, addition.labels)
    with workspace.locked(), disk_full_as_error(workspace.path):
        ingest = ingest_folder(
            addition.images,
            workspace.path / "images",
            max_pixels=workspace.settings.max_pixels,
            intensity_max=_intensity_max(workspace, addition.intensity_max),
            progress=progress,
        )
        if not ingest.images:
            raise DataError(
                f"no usable image in {addition.images} ({len(ingest.quarantined)} in quarantine)",
                "Give a folder with images.",
            )
        known = workspace.images_by_key()
        test = {image.key for image in workspace.images("test")}
        labels = _plan_labels(workspace, addition, ingest, test)
        new = [image for image in ingest.images if image.key not in known]
        if ingest.scale is not None:
            workspace.set_intensity_max(ingest.scale.intensity_max)
        workspace.journal.add_images(new, "pool", workspace.path)
        workspace.journal.record_harvests(labels.harvests, source="import")
        _update_quarantine(workspace, ingest)
        accounts = {} if labels.account is None else {"annotations": labels.account}
        record_import(workspace.path, "add", accounts, ingest.account())
    return AdditionResult(
        ingest,
        new_images=len(new),
        test_images=sum(image.key in test for image in ingest.images),
        new_labels=labels.new,
        replaced_labels=labels.replaced,
        account=labels.account,
    )


def _check_classes(workspace: Workspace, labels: AnnotationSet | None) -> None:
    book = workspace.class_book()
    for label in sorted({a.label for e in labels.images for a in e.annotations} if labels else ()):
        book.resolve(label)


def _intensity_max(workspace: Workspace, given: int | None) -> int | None:
    stored = workspace.intensity_max()
    if stored is None or given in (None, stored):
        return given if stored is None else stored
    raise SettingsError(
        f"--intensity-max is {given}, but the images of {workspace.path} are stored with {stored}",
        "Omit the option, or make a new workspace.",
    )


class _LabelPlan(NamedTuple):
    """The labels to record.

    Attributes:
        harvests: new and changed labels.
        new: number of images that had no labels.
        replaced: names of images whose imported labels change.
        account: of all labels; None if none were given.
    """

    harvests: tuple[Harvest, ...] = ()
    new: int = 0
    replaced: tuple[str, ...] = ()
    account: ImportAccount | None = None


def _plan_labels(
    workspace: Workspace, addition: Addition, ingest: IngestResult, test: Collection[str]
) -> _LabelPlan:
    """Decide about each label, without recording it.

    Args:
        test: keys of the test set.
    """
    if addition.labels is None:
        return _LabelPlan()
    book = workspace.class_book()
    match = match_labels(addition.labels, ingest, addition.images, book)
    labelled = match.labelled
    refuse_test_images([p.image.name for p in labelled if p.image.key in test], "the labels to add")
    DatasetVersion.of(labelled, book.vocabulary())  # checks the boxes
    states = workspace.journal.harvests()
    sent = {task.key for task in workspace.journal.tasks()}
    harvests, left_out, replaced = [], [], []
    for item in labelled:
        image, state = item.image, states.get(item.image.key)
        reason = _reason_to_keep(state, item) if image.key in sent else None
        if reason is not None:
            left_out.append(LeftOutImage(match.entry_names[image.name], len(item.annotations), reason))
        elif state is None:
            harvests.append(imported_harvest(item))
        elif _differs(state, item) and image.key not in sent:
            replaced.append(image.name)
            later = state.updated_at + timedelta(microseconds=1)
            harvests.append(replace(imported_harvest(item), updated_at=later))
    account = match.account.without_images(left_out)
    if addition.strict:
        account.require_complete(str(addition.images))
    return _LabelPlan(tuple(harvests), len(harvests) - len(replaced), tuple(replaced), account)


def _reason_to_keep(state: Harvest | None, labelled: LabelledImage) -> Reason | None:
    """Why the label of an image that was sent out is not taken; None where it is the annotators' own."""
    if state is None:
        return Reason.SENT_OUT
    return Reason.ANNOTATED if not state.labelled or _differs(state, labelled) else None


def _differs(state: Harvest, labelled: LabelledImage) -> bool:
    return set(state.annotations) != set(labelled.annotations)


def _update_quarantine(workspace: Workspace, ingest: IngestResult) -> None:
    """Add the files of this folder that cannot be used; remove those that can be used now."""
    usable = {image.name for image in ingest.images}
    earlier = {name: reason for name, reason in workspace.quarantine().items() if name not in usable}
    workspace.save_quarantine(earlier | {q.name: q.reason for q in ingest.quarantined})
