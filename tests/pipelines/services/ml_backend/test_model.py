"""The champion in memory: replaced after a promotion, kept where the new one cannot be loaded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dsmoe_core.schema import ImageRecord, Prediction, Vocabulary
from pipelines.detectors.backend import PredictFunction
from pipelines.detectors.stub_detector import StubDetector
from pipelines.services.ml_backend.model import RETRY_INTERVAL_S, ChampionModel
from pipelines.workspace.workspace import Workspace
from tests.pipelines.services.ml_backend.stubs import Promote


class DivergedDetector(StubDetector):
    """Its models return predictions that are not finite."""

    def load(self, model: Path, vocabulary: Vocabulary) -> PredictFunction:
        predict = super().load(model, vocabulary)

        def diverged(images: Iterable[ImageRecord]) -> Iterator[Prediction]:
            return (replace(prediction, uncertainty=float("nan")) for prediction in predict(images))

        return diverged


def test_refresh_without_a_change_replaces_nothing(workspace: Workspace, promote: Promote) -> None:
    champion = ChampionModel(workspace, StubDetector())
    assert not champion.refresh()
    assert (champion.served, champion.problem) == (None, None)
    promote("m1")
    assert champion.refresh()
    served = champion.served
    assert served is not None
    assert served.version == workspace.prediction_version("m1")
    assert not champion.refresh()
    assert champion.served is served


def test_rollback_and_published_class_book_are_loaded_an_edited_one_is_not(
    workspace: Workspace, promote: Promote
) -> None:
    champion = ChampionModel(workspace, StubDetector())
    versions = []
    for model in ("m1", "m2"):
        promote(model)
        champion.refresh()
        versions.append(champion.served and champion.served.version)
    workspace.registry.rollback()
    assert champion.refresh()
    assert champion.served is not None
    assert champion.served.version == versions[0] != versions[1]
    workspace.working_book().with_description("rust", "a rusty block", "person", "Ada").save(
        workspace.path / "classes.yaml"
    )
    assert not champion.refresh()
    assert champion.served.version == versions[0]
    workspace.class_books.publish(None, author="Ada", force_reason="for a test")
    assert champion.refresh()
    assert champion.served.version.startswith("m1+")
    assert champion.served.version != versions[0]


def test_failing_model_leaves_the_old_one_and_is_retried_later(
    workspace: Workspace, promote: Promote
) -> None:
    now = 0.0
    champion = ChampionModel(workspace, StubDetector(), clock=lambda: now)
    promote("m1")
    champion.refresh()
    old = champion.served
    promote("m2")
    weights = workspace.registry.folder("m2") / "model.safetensors"
    moved = weights.rename(weights.with_suffix(".aside"))
    assert not champion.refresh()
    assert champion.served is old
    assert champion.problem is not None
    moved.rename(weights)
    assert not champion.refresh()  # not before RETRY_INTERVAL_S: a damaged file would be read at every poll
    now += RETRY_INTERVAL_S + 1
    assert champion.refresh()
    assert champion.problem is None
    assert champion.served is not None
    assert champion.served.version == workspace.prediction_version("m2")


class FullGpu(StubDetector):
    """Fails to load models while ``full``."""

    full = True

    def load(self, model: Path, vocabulary: Vocabulary) -> PredictFunction:
        if self.full:
            raise RuntimeError("CUDA out of memory")
        return super().load(model, vocabulary)


def test_unexpected_error_is_logged_and_retried_later(
    workspace: Workspace, promote: Promote, caplog: pytest.LogCaptureFixture
) -> None:
    now, detector = 0.0, FullGpu()
    champion = ChampionModel(workspace, detector, clock=lambda: now)
    promote("m1")
    assert not champion.refresh()
    assert str(champion.problem) == "CUDA out of memory"
    assert "Traceback" in caplog.text
    detector.full = False
    now += RETRY_INTERVAL_S + 1
    assert champion.refresh()
    assert champion.problem is None
    assert champion.served is not None


def test_diverged_model_and_damaged_class_book_are_problems_and_not_served(
    workspace: Workspace, promote: Promote
) -> None:
    promote("m1")
    champion = ChampionModel(workspace, DivergedDetector())
    assert not champion.refresh()
    assert champion.served is None
    assert champion.problem
    (workspace.path / "classes.yaml").write_text("{")
    champion = ChampionModel(workspace, StubDetector())
    assert champion.refresh()  # a draft of the class book is not read
    workspace.class_books.store.path.write_bytes(b"torn" * 2000)
    assert not champion.refresh()
    assert "class_books.sqlite" in str(champion.problem)
