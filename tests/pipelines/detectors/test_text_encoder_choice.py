"""Text encoder of a workspace: it sets the width of the network, and a model works with no other encoder."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from embeddings_server import WIDTH as SERVED
from embeddings_server import EmbeddingsServer
from tiny import SMALL
from tiny_language_model import WIDTH, write_language_model

from dsmoe_core.config import ModelConfig, TrainingConfig
from dsmoe_core.errors import ModelError, SettingsError
from dsmoe_core.schema import LabelledImage, Vocabulary
from pipelines.detectors.backend import DetectorBackend
from pipelines.detectors.ds_moe import DSMoEBackend, make_text_encoder
from pipelines.detectors.registry import detector_backend
from pipelines.rounds.context import LoopContext
from pipelines.rounds.harvesting import harvest
from pipelines.rounds.loop import open_round
from pipelines.rounds.retraining import make_dataset, train
from pipelines.rounds.simulated_annotator import load_truth
from pipelines.settings.detector import DetectorSettings, ServerText, TextSettings, TransformersText
from pipelines.settings.environment import Environment
from pipelines.workspace.workspace import Workspace

SHORT = TrainingConfig(images_seen=4, batch=2)


@pytest.fixture
def pool(workspace: Workspace, blocks: Path) -> list[LabelledImage]:
    return list(load_truth(blocks / "train.json", workspace).values())[:3]


@pytest.fixture
def vocabulary(workspace: Workspace) -> Vocabulary:
    return workspace.class_book().vocabulary()


@pytest.fixture
def server() -> Iterator[EmbeddingsServer]:
    with EmbeddingsServer() as server:
        yield server


def local(folder: Path, seed: int = 0) -> TransformersText:
    model = write_language_model(folder / f"language-model-{seed}", seed=seed)
    return TransformersText(model=str(model), dtype="float32", device_map="cpu")


def fit(
    detector: DetectorBackend,
    pool: Sequence[LabelledImage],
    vocabulary: Vocabulary,
    out: Path,
    parent: Path | None = None,
) -> tuple[dict[str, object], dict[str, object]]:
    """Summary and card of a short training."""
    summary = detector.fit(images=pool, vocabulary=vocabulary, training=SHORT, out=out, start_from=parent)
    return summary, json.loads((out / "model.json").read_text())


def test_model_has_the_width_of_its_text_encoder_and_is_refused_with_another(
    pool: list[LabelledImage], vocabulary: Vocabulary, tmp_path: Path
) -> None:
    first, second = (DSMoEBackend(SMALL, tmp_path / "texts", local(tmp_path, seed=seed)) for seed in (0, 1))
    summary, card = fit(first, pool, vocabulary, tmp_path / "model")
    assert SMALL.text_width != WIDTH
    assert card["config"]["text_width"] == WIDTH  # type: ignore[index]
    assert str(card["text_encoder"]).startswith("folder@")
    assert summary["text_encoder"] == card["text_encoder"]
    images = [p.image for p in pool]
    predictions = list(first.predict(tmp_path / "model", vocabulary, images))
    assert [p.key for p in predictions] == [p.key for p in images]
    with pytest.raises(ModelError, match=str(card["text_encoder"])):
        list(second.predict(tmp_path / "model", vocabulary, images))
    with pytest.raises(ModelError, match=r"detector\.text_encoder"):
        fit(second, pool, vocabulary, tmp_path / "child", parent=tmp_path / "model")
    assert fit(first, pool, vocabulary, tmp_path / "child", parent=tmp_path / "model")


def test_server_gets_its_key_and_each_text_once(
    workspace: Workspace,
    server: EmbeddingsServer,
    pool: list[LabelledImage],
    vocabulary: Vocabulary,
    tmp_path: Path,
) -> None:
    text = ServerText(url=server.url, model="tiny")
    workspace.settings = workspace.settings.model_copy(
        update={"detector": DetectorSettings(model=SMALL, text_encoder=text)}
    )
    environment = Environment.read({"DSMOE_EMBEDDINGS_API_KEY": "sk-very-secret"})
    _, card = fit(detector_backend(workspace, environment), pool, vocabulary, tmp_path / "model")
    assert card["config"]["text_width"] == SERVED  # type: ignore[index]
    assert card["text_encoder"] == "tiny/server/unit"
    assert {headers["authorization"] for headers in server.headers} == {"Bearer sk-very-secret"}
    requests = len(server.bodies)
    repeated = detector_backend(workspace, Environment.read({}))
    assert list(repeated.predict(tmp_path / "model", vocabulary, [p.image for p in pool]))
    # On Python 3.11 the type checks of the tests read every property of an encoder, also the width.
    assert [body for body in server.bodies[requests:] if body["input"] != ["width"]] == []
    files = [p.read_text() for p in tmp_path.rglob("*") if p.suffix in (".json", ".yaml")]
    assert "sk-very-secret" not in "".join(files)


def test_text_encoder_of_an_incompatible_width_is_refused(
    pool: list[LabelledImage], vocabulary: Vocabulary, tmp_path: Path
) -> None:
    incompatible = ModelConfig.model_validate({**SMALL.model_dump(), "text_width": 15, "text_heads": 5})
    with pytest.raises(SettingsError, match=r"text_width 64 .*text_heads 5"):
        fit(
            DSMoEBackend(incompatible, tmp_path / "texts", local(tmp_path)),
            pool,
            vocabulary,
            tmp_path / "model",
        )


@pytest.mark.parametrize(
    "text", [TransformersText(model="acme/words"), TransformersText(model="~/none"), None], ids=str
)
def test_text_encoder_is_loaded_when_it_is_used_first(text: TextSettings | None) -> None:
    encoder = make_text_encoder(text or ServerText(url="http://127.0.0.1:1/v1", model="tiny"))
    assert callable(encoder.encode)


def test_changed_text_encoder_changes_the_model_id(
    context: LoopContext, label: Callable[[LoopContext], None]
) -> None:
    """Otherwise a round that is killed and continued after a change of settings would take the old model."""
    workspace = context.workspace
    open_round(context)
    label(context)
    harvest(context, 0, partial=False)
    dataset = make_dataset(context, 0)["dataset_version"]
    first = train(context, 0, dataset)
    assert train(context, 0, dataset) == first
    detector = workspace.settings.detector.model_copy(
        update={"text_encoder": TransformersText(model="acme/words")}
    )
    workspace.settings = workspace.settings.model_copy(update={"detector": detector})
    assert train(context, 0, dataset) != first
