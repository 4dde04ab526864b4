"""Export of a workspace's labels and their import into a new workspace."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from dsmoe_core.data.annotation_set import AnnotationSet, ImageAnnotations
from dsmoe_core.data.formats import LABEL_FORMATS, LabelFormat, read_annotations
from dsmoe_core.data.label_source import ReadOptions, SplitChoice
from dsmoe_core.errors import DataError, WorkspaceError
from dsmoe_core.schema import Annotation, Box, ImageRecord
from pipelines import cli
from pipelines.datasets.label_export import CARD, export_labels, export_names
from pipelines.settings.workspace import WorkspaceSettings
from pipelines.workspace.dataset_version import DatasetVersion
from pipelines.workspace.ingest import Source, make_workspace
from pipelines.workspace.workspace import Workspace

FORMATS = {label_format.name: label_format for label_format in LABEL_FORMATS}
each_format = pytest.mark.parametrize("label_format", LABEL_FORMATS, ids=lambda f: f.name)
TOLERANCE = 0.002
"""Pixels: a workspace rounds to thousandths of a pixel, once more when it is imported."""

Spec = tuple[tuple[str, ...], list[tuple[str, str, int, int, list[tuple[tuple[float, ...], str]]]]]


def labels_of(export: Path, label_format: LabelFormat, split: str) -> AnnotationSet:
    """The labels of one split, from the path that docs/formats.md gives."""
    path = "labels/{split}" if label_format.split_path is None else label_format.split_path
    return read_annotations(export / path.format(split=split), export / "images")


@contextmanager
def imported(export: Path, label_format: LabelFormat, path: Path) -> Iterator[Workspace]:
    """A new workspace from an export."""
    splits = json.loads((export / CARD).read_text())["images"]
    source = Source(
        export / "images",
        annotations=labels_of(export, label_format, "train") if "train" in splits else None,
        test=labels_of(export, label_format, "val") if "val" in splits else None,
    )
    workspace, ingest = make_workspace(path, source, settings_of("again"))
    assert ingest.quarantined == ()
    with workspace:
        yield workspace


def settings_of(title: str) -> WorkspaceSettings:
    return WorkspaceSettings.model_validate(
        {"title": title, "studio": {"kind": "stub"}, "detector": {"kind": "stub"}}
    )


def content(workspace: Workspace, names: dict[str, str]) -> dict[str, dict[str, list[tuple[float, ...]]]]:
    """Boxes by image and class, for the pool and the test set; image names translated by ``names``."""
    return {
        split: {
            names.get(p.image.name, p.image.name): sorted(
                (*a.box.corners, workspace.class_book().vocabulary().index(a.label)) for a in p.annotations
            )
            for p in labelled
        }
        for split, labelled in (
            ("pool", workspace.annotations().values()),
            ("test", workspace.test_set()),
        )
    }


def assert_same(actual: Workspace, expected: Workspace, renamed: dict[str, str]) -> None:
    assert actual.class_book().vocabulary().names == expected.class_book().vocabulary().names
    first, second = content(actual, {}), content(expected, renamed)
    for split in ("pool", "test"):
        assert first[split].keys() == second[split].keys()
        for name, boxes in second[split].items():
            assert len(first[split][name]) == len(boxes)
            for a, b in zip(first[split][name], boxes, strict=True):
                assert a == pytest.approx(b, abs=TOLERANCE)


NAMES = st.text(
    st.characters(exclude_characters="/\x00", exclude_categories=("Cs",)), min_size=1, max_size=12
).filter(lambda part: not part.startswith(".") and len(part.encode()) < 100)
CLASS_NAMES = st.text(st.characters(categories=("Ll", "Lu", "Lo", "Nd")), min_size=1, max_size=8)


@st.composite
def specs(draw: st.DrawFn) -> Spec:
    """Classes, then split, name, width, height and boxes of each image."""
    classes = tuple(draw(st.lists(CLASS_NAMES, min_size=1, max_size=4, unique_by=str.casefold)))
    paths = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
    suffixes = st.sampled_from([".png", ".jpg", ".PNG", ".jpeg", ".tif", ".bmp"])
    images = []
    for number, stem in enumerate(draw(st.lists(paths, min_size=1, max_size=4, unique_by=str.casefold))):
        width, height = draw(st.integers(4, 70)), draw(st.integers(4, 70))
        count = draw(st.integers(0, 3))
        boxes = [(draw(corners(width, height)), draw(st.sampled_from(classes))) for _ in range(count)]
        split = draw(st.sampled_from(["pool", "test"]))
        images.append((split, stem + f"{number}" + draw(suffixes), width, height, boxes))
    return classes, images


@st.composite
def corners(draw: st.DrawFn, width: int, height: int) -> tuple[float, ...]:
    """Corners on a grid of eighths of a pixel."""
    x1, y1 = draw(st.integers(0, width * 8 - 1)), draw(st.integers(0, height * 8 - 1))
    x2, y2 = draw(st.integers(x1 + 1, width * 8)), draw(st.integers(y1 + 1, height * 8))
    return x1 / 8, y1 / 8, x2 / 8, y2 / 8


FILE_TYPES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".tif": "TIFF", ".bmp": "BMP"}


@contextmanager
def workspace_of(spec: Spec, folder: Path) -> Iterator[Workspace]:
    classes, images = spec
    sets: dict[str, list[ImageAnnotations]] = {"pool": [], "test": []}
    for number, (split, name, width, height, boxes) in enumerate(images):
        path = folder / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = Image.new("RGB", (width, height), (number * 50, 80, 120))
        pixels.save(path, format=FILE_TYPES[path.suffix.lower()])
        annotations = tuple(Annotation(Box(*c), label) for c, label in boxes)
        sets[split].append(ImageAnnotations(name, width, height, annotations))
    annotations, test = (AnnotationSet(classes, tuple(entries)) for entries in sets.values())
    source = Source(
        folder / "images",
        annotations=annotations if annotations.images else None,
        test=test if test.images else None,
        classes=classes,
    )
    workspace, _ = make_workspace(folder / "workspace", source, settings_of("first"))
    with workspace:
        yield workspace


@pytest.mark.parametrize("name", list(FORMATS))
@settings(max_examples=12, suppress_health_check=[HealthCheck.too_slow])
@given(spec=specs())
def test_exported_workspace_is_the_same_when_imported_again(name: str, spec: Spec) -> None:
    with TemporaryDirectory() as scratch, workspace_of(spec, Path(scratch)) as workspace:
        out = Path(scratch) / "export"
        export = export_labels(workspace, FORMATS[name], out, progress=lambda _done, _total: None)
        with imported(out, FORMATS[name], Path(scratch) / "again") as again:
            prefix = {"pool": "train/", "test": "val/"} if name == "yolo" else {"pool": "", "test": ""}
            moved = {
                p.image.name: prefix[split] + export.renamed.get(p.image.name, p.image.name)
                for split, labelled in (
                    ("pool", workspace.annotations().values()),
                    ("test", workspace.test_set()),
                )
                for p in labelled
            }
            assert_same(again, workspace, moved)


@pytest.fixture
def spec() -> Spec:
    return (
        ("spur", "short circuit", "unused"),
        [
            ("pool", "b/a.tif", 40, 30, [((1.0, 2.0, 11.5, 22.25), "short circuit")]),
            ("pool", "b/a.png", 40, 30, [((0.0, 0.0, 40.0, 30.0), "spur"), ((3, 3, 9, 9), "spur")]),
            ("pool", "classes.png", 20, 20, []),
            ("test", "Prüf ling 1.jpg", 31, 17, [((0.125, 0.5, 3.0, 16.5), "spur")]),
        ],
    )


@each_format
def test_export_has_all_labelled_images_in_class_order(
    tmp_path: Path, spec: Spec, label_format: LabelFormat
) -> None:
    with workspace_of(spec, tmp_path) as workspace:
        made = export_labels(workspace, label_format, tmp_path / "out", progress=lambda _d, _t: None)
        assert made.images == {"train": 3, "val": 1}
        assert made.boxes == {"train": 3, "val": 1}
        assert made.classes == ("spur", "short circuit", "unused")
        assert json.loads((tmp_path / "out" / CARD).read_text())["images"] == made.images
        files = [p for p in (tmp_path / "out" / "images").rglob("*") if p.is_file()]
        assert len(files) == 4
        assert labels_of(tmp_path / "out", label_format, "train").classes == made.classes


@each_format
def test_second_export_is_byte_for_byte_the_same(
    tmp_path: Path, spec: Spec, label_format: LabelFormat
) -> None:
    with workspace_of(spec, tmp_path) as workspace:
        contents = []
        for link in (False, True):  # the second replaces the first
            export_labels(workspace, label_format, tmp_path / "out", link=link, progress=lambda _d, _t: None)
            files = sorted(p for p in (tmp_path / "out").rglob("*") if p.is_file())
            contents.append([(p.relative_to(tmp_path), p.read_bytes()) for p in files])
        assert contents[0] == contents[1]
        stored = {image.path.stat().st_ino for image in workspace.images()}
        assert {p.stat().st_ino for p in files if "images" in p.parts[-3:]} <= stored


@pytest.mark.parametrize(("choice", "images"), [(SplitChoice.TRAIN, 3), (SplitChoice.TEST, 1)])
def test_splits_of_a_yolo_export_are_recognised(
    tmp_path: Path, spec: Spec, choice: SplitChoice, images: int
) -> None:
    with workspace_of(spec, tmp_path) as workspace:
        export_labels(workspace, FORMATS["yolo"], tmp_path / "out", progress=lambda _d, _t: None)
    for path in (tmp_path / "out", tmp_path / "out" / "data.yaml"):
        read = read_annotations(path, tmp_path / "out" / "images", ReadOptions(split=choice))
        assert len(read.images) == images
        assert read.states_negatives


def test_yolo_settings_name_the_splits(tmp_path: Path, spec: Spec) -> None:
    with workspace_of(spec, tmp_path) as workspace:
        export_labels(workspace, FORMATS["yolo"], tmp_path / "out", progress=lambda _d, _t: None)
    content = yaml.safe_load((tmp_path / "out" / "data.yaml").read_text())
    assert (content["train"], content["val"]) == ("images/train", "images/val")
    assert content["names"] == {0: "spur", 1: "short circuit", 2: "unused"}


def test_dataset_version_is_exported_as_it_was(tmp_path: Path, spec: Spec) -> None:
    with workspace_of(spec, tmp_path) as workspace:
        labelled = list(workspace.annotations().values())
        version = DatasetVersion.of(labelled[:1], workspace.class_book().vocabulary())
        version.save(workspace.path / "datasets")
        made = export_labels(
            workspace, FORMATS["coco"], tmp_path / "out", version=version.id, progress=lambda _d, _t: None
        )
        assert made.images == {"train": 1}
        test = workspace.journal.value("test_set")
        made = export_labels(
            workspace, FORMATS["coco"], tmp_path / "out", version=test, progress=lambda _d, _t: None
        )
        assert made.images == {"val": 1}
        assert not (tmp_path / "out" / "train.json").exists()
        with pytest.raises(WorkspaceError, match="0000"):
            export_labels(
                workspace, FORMATS["coco"], tmp_path / "out", version="0000", progress=lambda _d, _t: None
            )


def record(name: str, number: int, suffix: str = ".png") -> ImageRecord:
    key = f"{number:064x}"[::-1]
    return ImageRecord(key, name, Path(f"{key}{suffix}"), 10, 10)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("a.png",), ["a.png"]),
        (("a.tif",), ["a.png"]),
        (("no ending",), ["no ending.png"]),
        (("sub/a.PNG",), ["sub/a.PNG"]),
        (("a.png", "a.tif"), ["a.png", "a-200000000000.png"]),
        (("A.png", "a.png"), ["A.png", "a-200000000000.png"]),
        (("a.png", "a.png"), ["a.png", "a-200000000000.png"]),
        (("classes.png",), ["classes-100000000000.png"]),
        (("new\nline.png",), ["new_line.png"]),
        (("back\\slash.png",), ["back_slash.png"]),
        ((" .hidden.png",), ["_.hidden.png"]),
        ((" a / b .png",), ["a/b.png"]),
        (("x" * 251 + ".png",), ["x" * 200 + ".png"]),
    ],
)
def test_exported_names(names: tuple[str, ...], expected: list[str]) -> None:
    made = export_names(record(name, number) for number, name in enumerate(names, start=1))
    assert sorted(made.values()) == sorted(expected)


@given(st.lists(st.tuples(NAMES, st.sampled_from([".png", ".tif", ""])), max_size=8))
def test_exported_names_never_share_a_label_file(parts: list[tuple[str, str]]) -> None:
    made = export_names(record(stem + suffix, number) for number, (stem, suffix) in enumerate(parts))
    stems = Counter(str(Path(name).with_suffix("")).casefold() for name in made.values())
    assert set(stems.values()) <= {1}
    assert len(made) == len(parts)


def test_wrong_targets_are_refused_in_one_line(
    tmp_path: Path, spec: Spec, capsys: pytest.CaptureFixture[str]
) -> None:
    with workspace_of(spec, tmp_path) as workspace:
        arguments = ["data", "export", str(workspace.path), "--format", "coco", "--out"]
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "images").mkdir()
        (tmp_path / "mine" / "train.json").write_text("{}")
        (tmp_path / "file").write_text("x")
        for out in (tmp_path / "mine", tmp_path / "file", Path("/proc/dsmoe"), workspace.path):
            assert cli.run([*arguments, str(out)]) == 2
            (line,) = capsys.readouterr().err.strip().splitlines()
            assert str(out) in line
        assert (tmp_path / "mine" / "train.json").read_text() == "{}"
        assert cli.run([*arguments, str(tmp_path / "out")]) == 0
        assert "3 images with 3 boxes" in capsys.readouterr().out


def test_workspace_without_labels_is_refused(tmp_path: Path, blocks: Path) -> None:
    source = Source(blocks / "images", classes=["rust"])
    workspace, _ = make_workspace(tmp_path / "w", source, settings_of("empty"))
    with workspace, pytest.raises(DataError, match="no labelled image"):
        export_labels(workspace, FORMATS["coco"], tmp_path / "out", progress=lambda _d, _t: None)
    assert not (tmp_path / "out").exists()
