"""Tests of the data set in FiftyOne on a real database."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from nasty_names import IMAGE_TAG, NAMES
from pymongo.errors import PyMongoError

from annotate.review.dataset import UNCERTAIN_VIEW, build, database_errors
from annotate.review.server import database
from dsmoe_core.errors import ReviewError
from dsmoe_core.schema import Annotation
from tests.annotate.review.plates import samples


def test_import_loads_neither_torch_nor_fiftyone() -> None:
    code = (
        "import sys, annotate.review.app, annotate.review.database, annotate.review.dataset\n"
        "print(*sorted({'torch', 'fiftyone', 'pymongo'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""


def test_database_errors_are_converted_to_review_errors() -> None:
    with (
        pytest.raises(ReviewError, match=r"'plates' \(disk full\)"),
        database_errors("plates"),
    ):
        raise PyMongoError("disk full, full error: {}")


@pytest.fixture(scope="module")
def fiftyone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """FiftyOne on a database for this module."""
    with database(tmp_path_factory.mktemp("review")):
        import fiftyone

        yield fiftyone


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # FiftyOne and what it imports
class TestRealDataset:
    def test_all_fields_are_written_and_the_view_is_sorted(self, fiftyone: Any, tmp_path: Path) -> None:
        steps: list[tuple[int, int]] = []
        summary = build("all", samples(tmp_path, 9), progress=lambda done, total: steps.append((done, total)))
        assert summary == ("all", 9, 0, 0, 0)
        assert steps == [(9, 9)]
        dataset = fiftyone.load_dataset("all")
        assert dataset.persistent
        assert dataset.info == {"classes": ["scratch.deep", "dent"], "experts": 6}
        sample = dataset.match({"image_name": "line/plate-6.png"}).first()
        assert sample.ground_truth.detections[0].label == "dent"
        [detection] = sample.predictions.detections
        assert (detection.confidence, detection.entropy, detection.second_best) == (0.6, 0.6, "scratch.deep")
        assert detection.probs == [0.5, 0.6]
        assert sample.gating_weights == [0.0, 0.75, 0.0, 0.0, 0.0, 0.25]
        assert (sample.uncertainty, sample.lead_expert, sample.tags) == (
            0.06,
            "expert 2",
            ["pool", "round 1"],
        )
        view = dataset.load_saved_view(UNCERTAIN_VIEW)
        assert view.values("uncertainty") == [0.08, 0.05, 0.04, 0.02, 0.01]
        assert dataset.count("predictions.detections") == 7

    def test_names_that_are_markup_or_paths_are_stored_as_they_are(
        self, fiftyone: Any, tmp_path: Path
    ) -> None:
        [sample] = samples(tmp_path, 1)
        assert sample.prediction is not None
        [detection] = sample.prediction.detections
        marked = replace(
            sample,
            image=replace(sample.image, name=IMAGE_TAG),
            annotations=tuple(Annotation(detection.box, name) for name in NAMES),
            prediction=replace(
                sample.prediction,
                detections=tuple(
                    replace(detection, label=name, probabilities={name: 0.6, "dent": 0.1}) for name in NAMES
                ),
            ),
        )
        build("names", [marked])
        stored = fiftyone.load_dataset("names").match({"image_name": IMAGE_TAG}).first()
        for boxes in (stored.ground_truth, stored.predictions):
            assert [box.label for box in boxes.detections] == list(NAMES)
        assert set(fiftyone.load_dataset("names").default_classes) == {*NAMES, "dent"}

    def test_rebuild_leaves_unchanged_samples(self, fiftyone: Any, tmp_path: Path) -> None:
        build("again", samples(tmp_path, 6))
        dataset = fiftyone.load_dataset("again")
        before = dict(zip(*dataset.values(["image_key", "id"]), strict=True))
        assert build("again", samples(tmp_path, 6)) == ("again", 0, 0, 6, 0)
        dataset.reload()
        assert dict(zip(*dataset.values(["image_key", "id"]), strict=True)) == before
        assert dataset.list_saved_views() == [UNCERTAIN_VIEW]

    def test_rebuild_updates_in_place_and_keeps_tags_and_views_of_users(
        self, fiftyone: Any, tmp_path: Path
    ) -> None:
        build("update", samples(tmp_path, 6))
        dataset = fiftyone.load_dataset("update")
        before = dict(zip(*dataset.values(["image_key", "id"]), strict=True))
        first = dataset.match({"image_name": "line/plate-0.png"}).first()
        first.tags.append("ask Kim")
        first.save()
        dataset.save_view("mine", dataset.limit(1))
        later = [replace(s, tags=("pool", "round 2")) for s in samples(tmp_path, 8, "m2+b1")]
        assert build("update", later[:3] + later[4:]) == ("update", 2, 5, 0, 1)
        dataset.reload()
        after = dict(zip(*dataset.values(["image_key", "id"]), strict=True))
        assert len(after) == 7
        assert all(after[key] == before[key] for key in after if key in before)
        first.reload()
        assert first.tags == ["pool", "round 2", "ask Kim"]
        assert first.version == "m2+b1"
        assert dataset.list_saved_views() == ["mine", UNCERTAIN_VIEW]

    def test_data_set_without_samples_has_an_empty_view(self, fiftyone: Any) -> None:
        assert build("empty", []) == ("empty", 0, 0, 0, 0)
        assert fiftyone.load_dataset("empty").load_saved_view(UNCERTAIN_VIEW).values("uncertainty") == []

    def test_second_database_in_the_same_process_is_refused(self, fiftyone: Any, tmp_path: Path) -> None:
        with pytest.raises(ReviewError, match="mongodb://"), database(tmp_path):
            pytest.fail("FiftyOne already uses the first database")
