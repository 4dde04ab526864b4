"""The FiftyOne data set of a workspace: one sample per image, updated in place.

Needs :func:`annotate.review.server.database` around it, which says where FiftyOne's database is before
FiftyOne is imported; that is also why FiftyOne is only imported inside functions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, NamedTuple

from annotate.review.sample import Layout, ReviewSample, describe, fingerprint
from dsmoe_core.errors import ReviewError
from dsmoe_core.progress import CountCallback

UNCERTAIN_VIEW = "Most useful first"
BATCH = 200
"""Samples written at once: large enough to be quick, small enough for a moving progress bar."""

SAMPLE_FIELDS = {
    "image_key": ("StringField", "sha256 of the image's bytes; its identity everywhere"),
    "image_name": ("StringField", "the name it came in under"),
    "labelled": ("BooleanField", "whether people have said what is on it"),
    "uncertainty": ("FloatField", "the detector's doubt; higher = label sooner"),
    "routing_entropy": ("FloatField", "the router's doubt about which experts to ask, in nats"),
    "lead_expert": ("StringField", "the expert with the highest weight"),
    "version": ("StringField", "model version + class-book version of the detections"),
    "loop_tags": ("ListField", "the tags that the loop gave; all other tags are people's"),
    "experts": ("ListField", "the experts that looked at the image, best first"),
    "gating_weights": ("ListField", "one weight per expert, zero for those that did not look"),
    "fingerprint": ("StringField", "of all the above; an unchanged sample is not written again"),
}
DETECTION_FIELDS = {
    "entropy": ("FloatField", "mean binary entropy over the classes, in nats, 0 to ln 2"),
    "second_best": ("StringField", "the most probable other class"),
    "second_probability": ("FloatField", "its probability"),
    "probs": ("ListField", "probability per class, in the order of the data set's info"),
}
ITEMS = {
    "loop_tags": "StringField",
    "experts": "StringField",
    "gating_weights": "FloatField",
    "probs": "FloatField",
}
COLOURS = {"ground_truth": "#00e5ff", "predictions": "#ff9f1c", "uncertainty": "#ff9f1c"}
"""People cyan, the detector orange: told apart on copper, steel and green, by colour-blind people too."""
POOL = ["#00e5ff", "#ff9f1c", "#c3a6ff", "#8bd450", "#ff7a9c", "#f2e34c"]


class BuildSummary(NamedTuple):
    """What :func:`build` did, in images."""

    name: str
    added: int
    updated: int
    unchanged: int
    removed: int


def build(
    name: str, samples: Iterable[ReviewSample], *, progress: CountCallback | None = None
) -> BuildSummary:
    """Make the data set of this name show exactly these samples; what is there already stays in place.

    People's own tags, saved views and fields are kept. A sample whose content did not change is not written.

    Args:
        samples: one per image; a later sample of the same image replaces an earlier one.
        progress: called with (samples done, samples in all).

    Raises:
        ReviewError: FiftyOne or its database refused.
    """
    wanted = {sample.image.key: sample for sample in samples}
    layout = Layout.of(wanted.values())
    with database_errors(name):
        dataset = _open(name, layout)
        known: dict[str, str] = dict(zip(*dataset.values(["image_key", "fingerprint"]), strict=True))
        gone = [key for key in known if key not in wanted]
        if gone:
            dataset.delete_samples(_of_keys(dataset, gone))
        added = updated = done = 0
        for batch in _batches(wanted.values(), BATCH):
            described = {s.image.key: describe(s, layout) for s in batch}
            marks = {key: fingerprint(fields) for key, fields in described.items()}
            new = [key for key in described if key not in known]
            changed = [key for key in described if key in known and known[key] != marks[key]]
            _add(dataset, [(described[key], marks[key]) for key in new])
            _update(dataset, {key: (described[key], marks[key]) for key in changed})
            added, updated, done = added + len(new), updated + len(changed), done + len(batch)
            if progress is not None:
                progress(done, len(wanted))
        _save_view(dataset)
    return BuildSummary(name, added, updated, len(wanted) - added - updated, len(gone))


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
        item = ITEMS.get(path.rsplit(".", 1)[-1])
        subfield = getattr(fo, item) if item else None
        dataset.add_sample_field(path, getattr(fo, kind), subfield=subfield, description=description)
    for indexed in ("image_key", "uncertainty"):
        dataset.create_index(indexed)
    dataset.default_classes = list(layout.classes)
    dataset.info = {"classes": list(layout.classes), "experts": layout.experts}
    _arrange(dataset)
    dataset.save()
    return dataset


def _arrange(dataset: Any) -> None:
    """What the App shows without anybody clicking: people's boxes, the detector's, and its doubt."""
    import fiftyone as fo

    groups: dict[str, list[str]] = {
        "tags": ["tags", "_label_tags"],
        "what people say": ["labelled", "ground_truth"],
        "what the detector says": ["predictions", "uncertainty", "version"],
        "who looked": ["lead_expert", "experts", "routing_entropy", "gating_weights"],
    }
    named = {path for paths in groups.values() for path in paths}
    metadata = [f"metadata.{part}" for part in ("width", "height")]
    rest = [field for field in dataset.get_field_schema() if field not in named | {"metadata"}]
    dataset.app_config.sidebar_groups = [
        fo.SidebarGroupDocument(name=group, paths=paths, expanded=True) for group, paths in groups.items()
    ] + [
        fo.SidebarGroupDocument(name="metadata", paths=metadata, expanded=False),
        fo.SidebarGroupDocument(name="more", paths=rest, expanded=False),
    ]
    fields = [{"path": name, "fieldColor": colour} for name, colour in COLOURS.items()]
    dataset.app_config.color_scheme = fo.ColorScheme(color_by="field", color_pool=POOL, fields=fields)
    dataset.app_config.active_fields = fo.ActiveFields(paths=["ground_truth", "predictions", "uncertainty"])


def _add(dataset: Any, described: Sequence[tuple[dict[str, Any], str]]) -> None:
    import fiftyone as fo

    if described:
        fresh = []
        for fields, mark in described:
            width, height = fields["size"]
            sample = fo.Sample(filepath=fields["filepath"], tags=list(fields["loop_tags"]))
            sample["metadata"] = fo.ImageMetadata(width=width, height=height)
            _fill(sample, fields, mark)
            fresh.append(sample)
        dataset.add_samples(fresh, dynamic=False, progress=False)


def _update(dataset: Any, described: Mapping[str, tuple[dict[str, Any], str]]) -> None:
    if not described:
        return
    for sample in _of_keys(dataset, list(described)).iter_samples(autosave=True):
        fields, mark = described[sample["image_key"]]
        ours = set(sample["loop_tags"] or ())
        sample.tags = list(dict.fromkeys([*fields["loop_tags"], *(t for t in sample.tags if t not in ours)]))
        sample.filepath = fields["filepath"]
        _fill(sample, fields, mark)


def _fill(sample: Any, fields: Mapping[str, Any], mark: str) -> None:
    import fiftyone as fo

    for name in SAMPLE_FIELDS:
        sample[name] = mark if name == "fingerprint" else fields[name]
    for name in ("ground_truth", "predictions"):
        boxes = fields[name]
        sample[name] = None if boxes is None else fo.Detections(detections=[fo.Detection(**b) for b in boxes])


def _save_view(dataset: Any) -> None:
    from fiftyone import ViewField

    unlabelled = dataset.exists("uncertainty").match(ViewField("labelled") == False)  # noqa: E712 (a query)
    dataset.save_view(
        UNCERTAIN_VIEW,
        unlabelled.sort_by("uncertainty", reverse=True),
        description="Images nobody has labelled yet, those in which the detector doubts most first",
        overwrite=True,
    )


def _of_keys(dataset: Any, keys: list[str]) -> Any:
    from fiftyone import ViewField

    return dataset.match(ViewField("image_key").is_in(keys))


def _batches(samples: Iterable[ReviewSample], size: int) -> Iterator[list[ReviewSample]]:
    rest = iter(samples)
    while batch := list(islice(rest, size)):
        yield batch


@contextmanager
def database_errors(name: str) -> Iterator[None]:
    """Turn the database's own errors into ours; programming errors pass.

    Raises:
        ReviewError: the database refused, or is gone.
    """
    from pymongo.errors import PyMongoError

    try:
        yield
    except (PyMongoError, ConnectionError) as error:
        raise ReviewError(
            f"FiftyOne's database refused the data set {name!r} ({str(error).split(',')[0]})",
            "Check that the disk has room and the database runs, then run this again.",
        ) from error
