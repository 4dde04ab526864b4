"""The champion in memory: swapped when another is promoted, kept when the other cannot be used."""

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
from tests.pipelines.services.ml_backend.asking import Promote


class Diverged(StubDetector):
    """Its models answer, but with nonsense."""

    def load(self, model: Path, vocabulary: Vocabulary) -> PredictFunction:
        look = super().opened(model, vocabulary)

        def nonsense(images: Iterable[ImageRecord]) -> Iterator[Prediction]:
            return (replace(found, uncertainty=float("nan")) for found in look(images))

        return nonsense


def test_nothing_happens_while_nothing_changes(workspace: Workspace, promote: Promote) -> None:
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


def test_a_rollback_and_a_published_class_book_are_followed_an_edited_one_is_not(
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


def test_one_that_cannot_be_used_leaves_the_old_one_and_is_tried_again_later(
    workspace: Workspace, promote: Promote
) -> None:
    now = 0.0
    champion = ChampionModel(workspace, StubDetector(), clock=lambda: now)
    promote("m1")
    champion.refresh()
    old = champion.served
    promote("m2")
    weights = workspace.registry.folder("m2") / "model.safetensors"
    aside = weights.rename(weights.with_suffix(".aside"))
    assert not champion.refresh()
    assert champion.served is old
    assert champion.problem is not None
    assert "there is no model in" in champion.problem
    aside.rename(weights)
    assert not champion.refresh()  # not at once: a torn one would be read over and over
    now += RETRY_INTERVAL_S + 1
    assert champion.refresh()
    assert champion.problem is None
    assert champion.served is not None
    assert champion.served.version == workspace.prediction_version("m2")


class FullGpu(StubDetector):
    """Has no room for its models while something else runs."""

    full = True

    def load(self, model: Path, vocabulary: Vocabulary) -> PredictFunction:
        if self.full:
            raise RuntimeError("CUDA out of memory")
        return super().opened(model, vocabulary)


def test_whatever_goes_wrong_is_told_and_tried_again_later(
    workspace: Workspace, promote: Promote, caplog: pytest.LogCaptureFixture
) -> None:
    now, detector = 0.0, FullGpu()
    champion = ChampionModel(workspace, detector, clock=lambda: now)
    promote("m1")
    assert not champion.refresh()
    assert str(champion.problem) == "CUDA out of memory"
    assert "Traceback" in caplog.text  # it is no message of ours: where it comes from is of use
    detector.full = False
    now += RETRY_INTERVAL_S + 1
    assert champion.refresh()
    assert champion.problem is None
    assert champion.served is not None


def test_torn_versions_of_the_class_book_and_a_diverged_model_are_problems_and_no_swap(
    workspace: Workspace, promote: Promote
) -> None:
    promote("m1")
    champion = ChampionModel(workspace, Diverged())
    assert not champion.refresh()
    assert champion.served is None
    assert "not finite" in str(champion.problem)
    (workspace.path / "classes.yaml").write_text("{")
    champion = ChampionModel(workspace, StubDetector())
    assert champion.refresh()  # what is being edited is nobody's business
    workspace.class_books.store.path.write_bytes(b"torn" * 2000)
    assert not champion.refresh()
    assert "class_books.sqlite cannot be used" in str(champion.problem)
