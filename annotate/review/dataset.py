"""Builds the FiftyOne data set of a workspace: one sample per image, updated in place.

Call inside ``annotate.review.server.database``, which sets the database's address before FiftyOne is
imported. For the same reason FiftyOne is imported only inside functions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, NamedTuple

from annotate.review.sample import Layout, ReviewSample, describe, fingerprint
from dsmoe_core.errors import ReviewError
from dsmoe_core.progress import CountCallback

UNCERTAIN_VIEW = "Most uncertain first"
"""Name of the saved view of unlabelled images, sorted by falling uncertainty."""
BATCH = 200
"""Samples per write: large enough to be fast, small enough for a moving progress bar."""

SAMPLE_FIELDS = {
    "image_key": ("StringField", "sha256 of the image file; identifies the image"),
    "image_name": ("StringField", "original file name"),
    "labelled": ("BooleanField", "whether the image has been annotated"),
    "uncertainty": ("FloatField", "uncertainty of the prediction; higher = label sooner"),
    "routing_entropy": ("FloatField", "entropy of the router over the experts, in nats"),
    "lead_expert": ("StringField", "the expert with the highest gating weight over the image"),
    "version": ("StringField", "model version + class-book version of the prediction"),
    "loop_tags": ("ListField", "tags set by dsmoe; all other tags are the users' own"),
    "experts": ("ListField", "the selected experts, highest gating weight first"),
    "gating_weights": ("ListField", "gating weight per expert; 0 for experts that were not selected"),
    "fingerprint": ("StringField", "hash of all fields; an unchanged sample is not written again"),
}
DETECTION_FIELDS = {
    "entropy": ("FloatField", "mean binary entropy over the classes, in nats, 0 to ln 2"),
    "second_best": ("StringField", "the class with the second-highest probability"),
    "second_probability": ("FloatField", "probability of the second-best class"),
    "probs": ("ListField", "probability per class, in the order of the data set's info"),
    "expert": ("StringField", "the expert with the highest gating weight at the centre of the box"),
}
ITEM_TYPES = {
    "loop_tags": "StringField",
    "experts": "StringField",
    "gating_weights": "FloatField",
    "probs": "FloatField",
}
COLOURS = {"ground_truth": "#00e5ff", "predictions": "#ff9f1c", "uncertainty": "#ff9f1c"}
"""Ground truth cyan, predictions orange: distinct on copper, steel and green, and for colour-blind users."""
POOL = ["#00e5ff", "#ff9f1c", "#c3a6ff", "#8bd450", "#ff7a9c", "#f2e34c"]


class BuildSummary(NamedTuple):
    """Number of images that ``build`` added, updated, left unchanged and removed."""

    name: str
    added: int
    updated: int
    unchanged: int
    removed: int


def build(
    name: str, samples: Iterable[ReviewSample], *, progress: CountCallback | None = None
) -> BuildSummary:
    """Create or update the data set so that it has exactly these samples.

    Users' own tags, saved views and fields are kept. Unchanged samples are not written.

    Args:
        samples: one per image; a later sample of the same image replaces an earlier one.
        progress: called with (samples done, samples in total).

    Raises:
        ReviewError: the database refused an operation or cannot be reached.
    """
    wanted = {sample.image.key: sample for sample in samples}
    layout = Layout.of(wanted.values())
    with database_errors(name):
        dataset = _open(name, layout)
        stored: dict[str, str] = dict(zip(*dataset.values(["image_key", "fingerprint"]), strict=True))
        obsolete = [key for key in stored if key not in wanted]
        if obsolete:
            dataset.delete_samples(_select(dataset, obsolete))
        added = updated = done = 0
        for batch in _batches(wanted.values(), BATCH):
            described = {s.image.key: describe(s, layout) for s in batch}
            hashes = {key: fingerprint(fields) for key, fields in described.items()}
            new = [key for key in described if key not in stored]
            changed = [key for key in described if key in stored and stored[key] != hashes[key]]
            _add(dataset, [(described[key], hashes[key]) for key in new])
            _update(dataset, {key: (described[key], hashes[key]) for key in changed})
            added, updated, done = added + len(new), updated + len(changed), done + len(batch)
            if progress is not None:
                progress(done, len(wanted))
        _save_view(dataset)
    return BuildSummary(name, added, updated, len(wanted) - added - updated, len(obsolete))


def _open(name: str, layout: Layout) -> Any:
    import fiftyone as fo

    dataset = fo.load_dataset(name) if fo.dataset_exists(name) else fo.Dataset(name, persistent=True)
    dataset.persistent = True
    dataset.media_type = "image"
    schema: dict[str, tuple[str, str]] = dict(SAMPLE_FIELDS)
    for field in ("ground_truth", "predictions"):
        dataset.add_sample_field(field, fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections)
    schema.update({f"predictions.detections.{field}": kind for field, kind in DETECTION_FIELDS.items()})
    for path, (kind, description) in schema.items():
        item = ITEM_TYPES.get(path.rsplit(".", 1)[-1])
        subfield = getattr(fo, item) if item else None
        dataset.add_sample_field(path, getattr(fo, kind), subfield=subfield, description=description)
    for indexed in ("image_key", "uncertainty"):
        dataset.create_index(indexed)
    dataset.default_classes = list(layout.classes)
    dataset.info = {"classes": list(layout.classes), "experts": layout.experts}
    _configure_app(dataset)
    dataset.save()
    return dataset


def _configure_app(dataset: Any) -> None:
    """Set the sidebar groups, colours and visible fields of the app."""
    import fiftyone as fo

    groups: dict[str, list[str]] = {
        "tags": ["tags", "_label_tags"],
        "annotation": ["labelled", "ground_truth"],
        "prediction": ["predictions", "uncertainty", "version"],
        "routing": ["lead_expert", "experts", "routing_entropy", "gating_weights"],
    }
    listed = {path for paths in groups.values() for path in paths}
    metadata = [f"metadata.{part}" for part in ("width", "height")]
    rest = [field for field in dataset.get_field_schema() if field not in listed | {"metadata"}]
    dataset.app_config.sidebar_groups = [
        fo.SidebarGroupDocument(name=group, paths=paths, expanded=True) for group, paths in groups.items()
    ] + [
        fo.SidebarGroupDocument(name="metadata", paths=metadata, expanded=False),
        fo.SidebarGroupDocument(name="other", paths=rest, expanded=False),
    ]
    fields = [{"path": name, "fieldColor": colour} for name, colour in COLOURS.items()]
    dataset.app_config.color_scheme = fo.ColorScheme(color_by="field", color_pool=POOL, fields=fields)
    dataset.app_config.active_fields = fo.ActiveFields(paths=["ground_truth", "predictions", "uncertainty"])


def _add(dataset: Any, described: Sequence[tuple[dict[str, Any], str]]) -> None:
    import fiftyone as fo

    if described:
        new_samples = []
        for fields, digest in described:
            width, height = fields["size"]
            sample = fo.Sample(filepath=fields["filepath"], tags=list(fields["loop_tags"]))
            sample["metadata"] = fo.ImageMetadata(width=width, height=height)
            _fill(sample, fields, digest)
            new_samples.append(sample)
        dataset.add_samples(new_samples, dynamic=False, progress=False)


def _update(dataset: Any, described: Mapping[str, tuple[dict[str, Any], str]]) -> None:
    if not described:
        return
    for sample in _select(dataset, list(described)).iter_samples(autosave=True):
        fields, digest = described[sample["image_key"]]
        loop_tags = set(sample["loop_tags"] or ())
        sample.tags = list(
            dict.fromkeys([*fields["loop_tags"], *(t for t in sample.tags if t not in loop_tags)])
        )
        sample.filepath = fields["filepath"]
        _fill(sample, fields, digest)


def _fill(sample: Any, fields: Mapping[str, Any], digest: str) -> None:
    import fiftyone as fo

    for name in SAMPLE_FIELDS:
        sample[name] = digest if name == "fingerprint" else fields[name]
    for name in ("ground_truth", "predictions"):
        boxes = fields[name]
        sample[name] = None if boxes is None else fo.Detections(detections=[fo.Detection(**b) for b in boxes])


def _save_view(dataset: Any) -> None:
    from fiftyone import ViewField

    unlabelled = dataset.exists("uncertainty").match(ViewField("labelled") == False)  # noqa: E712 (a query)
    dataset.save_view(
        UNCERTAIN_VIEW,
        unlabelled.sort_by("uncertainty", reverse=True),
        description="Unlabelled images, sorted by falling uncertainty",
        overwrite=True,
    )


def _select(dataset: Any, keys: list[str]) -> Any:
    from fiftyone import ViewField

    return dataset.match(ViewField("image_key").is_in(keys))


def _batches(samples: Iterable[ReviewSample], size: int) -> Iterator[list[ReviewSample]]:
    iterator = iter(samples)
    while batch := list(islice(iterator, size)):
        yield batch


@contextmanager
def database_errors(name: str) -> Iterator[None]:
    """Context manager that converts database errors to ReviewError.

    Raises:
        ReviewError: the database refused an operation or cannot be reached.
    """
    from pymongo.errors import PyMongoError

    try:
        yield
    except (PyMongoError, ConnectionError) as error:
        raise ReviewError(
            f"FiftyOne's database refused the data set {name!r} ({str(error).split(',')[0]})",
            "Check that the disk has free space and the database runs, then run this again.",
        ) from error
