"""Settings and environment variables: frozen, checked, every error at once."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from dsmoe_core.config import ModelConfig
from dsmoe_core.errors import SettingsError
from pipelines.settings import (
    DemoPlan,
    DetectorSettings,
    Environment,
    PackagedText,
    ServerText,
    TransformersText,
    WorkspaceSettings,
    validate_settings,
)

DEPLOYMENT = (Path(__file__).resolve().parents[2] / "docs" / "deployment.md").read_text()


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("STUDIO_URL", "https://ada:hush@labels.example.com"),
        ("STUDIO_URL", "ftp://ada:hush@labels.example.com"),
        ("LLM_URL", "ftp://ada:hush@llm.example.com"),
        ("REVIEW_URI", "ada:hush@mongo.example.com"),
    ],
)
def test_a_login_in_an_address_is_never_shown(name: str, address: str) -> None:
    with pytest.raises(SettingsError, match=f"DSMOE_{name}: ") as error:
        Environment.read({f"DSMOE_{name}": address})
    assert "hush" not in str(error.value)


def test_the_settings_take_no_login_in_the_studio_s_address(tmp_path: Path) -> None:
    path = tmp_path / "dsmoe.yaml"
    path.write_text("title: boards\nstudio: {url: 'https://ada:hush@labels.example.com'}\n")
    with pytest.raises(SettingsError, match=r"studio\.url: .*has a login in it") as error:
        WorkspaceSettings.read(path)
    assert "hush" not in str(error.value)


def test_settings_come_back_as_they_were_written(tmp_path: Path) -> None:
    wanted = DemoPlan(budget=7, images_seen=(10, 20)).workspace_settings("boards")
    wanted.write(tmp_path / "dsmoe.yaml")
    assert WorkspaceSettings.read(tmp_path / "dsmoe.yaml") == wanted


def test_every_wrong_setting_is_named_at_once(tmp_path: Path) -> None:
    path = tmp_path / "dsmoe.yaml"
    path.write_text("title: boards\nround: {budget: 0, random_share: 2}\nstudio: {prot: 1}\n")
    with pytest.raises(SettingsError) as error:
        WorkspaceSettings.read(path)
    text = str(error.value)
    assert "round.budget" in text
    assert "(got 0)" in text
    assert "round.random_share" in text
    assert "studio.prot is not known" in text


@pytest.mark.parametrize("text", ["- a\n- b\n", "title: [", "\t:"])
def test_a_file_that_is_no_settings_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "dsmoe.yaml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=r"dsmoe\.yaml"):
        WorkspaceSettings.read(path)


def test_the_environment_is_read_and_checked() -> None:
    found = Environment.read({"DSMOE_LLM_URL": "http://127.0.0.1:8000/v1", "DSMOE_LLM_API_KEY": "s3cret"})
    assert found.llm_url == "http://127.0.0.1:8000/v1"
    assert "s3cret" not in repr(found)
    with pytest.raises(SettingsError) as error:
        Environment.read({"DSMOE_LLM_URL": "ftp://x", "DSMOE_LMM_MODEL": "y", "PATH": "/bin"})
    assert "DSMOE_LLM_URL" in str(error.value)
    assert "DSMOE_LMM_MODEL is not known" in str(error.value)


def test_a_wrong_secret_is_not_shown() -> None:
    with pytest.raises(SettingsError) as error:
        Environment.read({"DSMOE_LLM_TIMEOUT_S": "never", "DSMOE_LLM_API_KEY": "s3cret"})
    assert "s3cret" not in str(error.value)


def test_each_round_has_its_own_training_length_and_seed() -> None:
    settings = DetectorSettings(images_seen=(100, 50))
    assert [settings.training_for_round(n).images_seen for n in range(4)] == [100, 50, 50, 50]
    assert len({settings.training_for_round(n).seed for n in range(4)}) == 4


def test_the_default_demo_labels_160_images() -> None:
    plan = DemoPlan()
    assert (plan.rounds + 1) * plan.budget == 160


def detector(text_encoder: object, tmp_path: Path) -> DetectorSettings:
    path = tmp_path / "dsmoe.yaml"
    path.write_text(yaml.safe_dump({"title": "boards", "detector": {"text_encoder": text_encoder}}))
    return WorkspaceSettings.read(path).detector


def test_examples_of_the_deployment_document_are_valid(tmp_path: Path) -> None:
    """One of each kind, with no setting that is not known."""
    examples = re.findall(r"^```yaml\n(detector:\n.*?)^```", DEPLOYMENT, re.MULTILINE | re.DOTALL)
    kinds = []
    for i, example in enumerate(examples):
        path = tmp_path / f"{i}.yaml"
        path.write_text(f"title: boards\n{example}")
        kinds.append(type(WorkspaceSettings.read(path).detector.text_encoder))
    assert kinds == [TransformersText, ServerText]


def test_a_workspace_reads_with_the_packaged_text_encoder_unless_told_otherwise(tmp_path: Path) -> None:
    assert DetectorSettings().text_encoder == PackagedText()
    assert detector({"kind": "minilm"}, tmp_path).text_encoder == PackagedText()


@pytest.mark.parametrize("model", ["deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", "/models/qwen", "~/qwen"])
def test_a_language_model_is_of_the_hub_or_an_absolute_folder(model: str, tmp_path: Path) -> None:
    text = detector({"kind": "transformers", "model": model, "device_map": "auto"}, tmp_path).text_encoder
    assert text == TransformersText(model=model, device_map="auto")


@pytest.mark.parametrize(
    ("text_encoder", "problem"),
    [
        ({"kind": "bert"}, "text_encoder: input tag 'bert'"),
        ({"model": "a/b"}, "text_encoder: unable to extract tag"),
        ({"kind": "transformers"}, "model is missing"),
        (
            {"kind": "transformers", "model": "../qwen"},
            "expected ORG/NAME or the absolute path of a folder (got '../qwen')",
        ),
        ({"kind": "transformers", "model": "a/b", "dtype": "int3"}, "dtype"),
        (
            {"kind": "transformers", "model": "a/b", "trust_remote_code": True},
            "trust_remote_code is not known",
        ),
        ({"kind": "server", "url": "file:///etc/passwd", "model": "m"}, "url"),
        ({"kind": "server", "url": "http://127.0.0.1:1/v1"}, "model is missing"),
        ({"kind": "server", "url": "http://127.0.0.1:1/v1", "model": "m", "api_key": "s3cret"}, "not known"),
    ],
)
def test_a_wrong_text_encoder_is_named(text_encoder: dict[str, object], problem: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=re.escape(problem)) as error:
        detector(text_encoder, tmp_path)
    assert "s3cret" not in str(error.value)


@pytest.mark.parametrize("model", [{}, {**ModelConfig.of_size("base").model_dump(), "ablation": "B"}])
def test_only_a_network_with_mobile_sam_s_encoder_starts_from_it(model: dict[str, object]) -> None:
    with pytest.raises(SettingsError, match="expected size base and a row from C on"):
        validate_settings(DetectorSettings, {"start": "mobile-sam", "model": model}, "the test")
    base = ModelConfig.of_size("base").model_dump()
    assert (
        validate_settings(DetectorSettings, {"start": "mobile-sam", "model": base}, "the test").start
        == "mobile-sam"
    )
