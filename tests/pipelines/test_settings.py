"""Settings of a workspace and environment variables: validation, messages, defaults."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from dsmoe_core.config import ModelConfig
from dsmoe_core.errors import SettingsError
from pipelines.settings.demo import DemoPlan
from pipelines.settings.detector import DetectorSettings, PackagedText, ServerText, TransformersText
from pipelines.settings.environment import Environment
from pipelines.settings.validation import FORMAT_VERSION, validate_settings
from pipelines.settings.workspace import WorkspaceSettings

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
def test_login_in_an_address_is_never_in_the_message(name: str, address: str) -> None:
    with pytest.raises(SettingsError, match=f"DSMOE_{name}: ") as error:
        Environment.read({f"DSMOE_{name}": address})
    assert "hush" not in str(error.value)


def test_login_in_the_address_of_the_studio_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "dsmoe.yaml"
    path.write_text("title: boards\nstudio: {url: 'https://ada:hush@labels.example.com'}\n")
    with pytest.raises(SettingsError, match=r"studio\.url: ") as error:
        WorkspaceSettings.read(path)
    assert "hush" not in str(error.value)


def test_settings_are_read_as_they_were_written(tmp_path: Path) -> None:
    settings = DemoPlan(budget=7, images_seen=(10, 20)).workspace_settings("boards")
    settings.write(tmp_path / "dsmoe.yaml")
    assert WorkspaceSettings.read(tmp_path / "dsmoe.yaml") == settings
    assert settings.version == FORMAT_VERSION


def test_message_has_every_wrong_setting(tmp_path: Path) -> None:
    path = tmp_path / "dsmoe.yaml"
    path.write_text("title: boards\nround: {budget: 0, random_share: 2}\nstudio: {prot: 1}\n")
    with pytest.raises(SettingsError) as error:
        WorkspaceSettings.read(path)
    text = str(error.value)
    assert "round.budget" in text
    assert "(got 0)" in text
    assert "round.random_share" in text
    assert "studio.prot" in text


@pytest.mark.parametrize("text", ["- a\n- b\n", "title: [", "\t:"])
def test_file_without_settings_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "dsmoe.yaml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=r"dsmoe\.yaml"):
        WorkspaceSettings.read(path)


def test_environment_is_read_and_checked() -> None:
    environment = Environment.read(
        {"DSMOE_LLM_URL": "http://127.0.0.1:8000/v1", "DSMOE_LLM_API_KEY": "s3cret"}
    )
    assert environment.llm_url == "http://127.0.0.1:8000/v1"
    assert "s3cret" not in repr(environment)
    with pytest.raises(SettingsError) as error:
        Environment.read({"DSMOE_LLM_URL": "ftp://x", "DSMOE_LMM_MODEL": "y", "PATH": "/bin"})
    assert "DSMOE_LLM_URL" in str(error.value)
    assert "DSMOE_LMM_MODEL" in str(error.value)


def test_secret_is_not_in_a_message() -> None:
    with pytest.raises(SettingsError) as error:
        Environment.read({"DSMOE_LLM_TIMEOUT_S": "never", "DSMOE_LLM_API_KEY": "s3cret"})
    assert "s3cret" not in str(error.value)


def test_each_round_has_its_own_training_length_and_seed() -> None:
    settings = DetectorSettings(images_seen=(100, 50))
    assert [settings.training_for_round(n).images_seen for n in range(4)] == [100, 50, 50, 50]
    assert len({settings.training_for_round(n).seed for n in range(4)}) == 4


def test_default_demo_labels_160_images() -> None:
    plan = DemoPlan()
    assert (plan.rounds + 1) * plan.budget == 160


def detector(text_encoder: object, tmp_path: Path) -> DetectorSettings:
    path = tmp_path / "dsmoe.yaml"
    path.write_text(yaml.safe_dump({"title": "boards", "detector": {"text_encoder": text_encoder}}))
    return WorkspaceSettings.read(path).detector


def test_examples_of_the_deployment_document_are_valid(tmp_path: Path) -> None:
    """There is one example per kind of text encoder."""
    examples = re.findall(r"^```yaml\n(detector:\n.*?)^```", DEPLOYMENT, re.MULTILINE | re.DOTALL)
    kinds = []
    for i, example in enumerate(examples):
        path = tmp_path / f"{i}.yaml"
        path.write_text(f"title: boards\n{example}")
        kinds.append(type(WorkspaceSettings.read(path).detector.text_encoder))
    assert kinds == [TransformersText, ServerText]


def test_packaged_text_encoder_is_the_default(tmp_path: Path) -> None:
    assert DetectorSettings().text_encoder == PackagedText()
    assert detector({"kind": "minilm"}, tmp_path).text_encoder == PackagedText()


@pytest.mark.parametrize("model", ["deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", "/models/qwen", "~/qwen"])
def test_language_model_is_on_the_hub_or_in_an_absolute_folder(model: str, tmp_path: Path) -> None:
    text = detector({"kind": "transformers", "model": model, "device_map": "auto"}, tmp_path).text_encoder
    assert text == TransformersText(model=model, device_map="auto")


@pytest.mark.parametrize(
    ("text_encoder", "value"),
    [
        ({"kind": "bert"}, "'bert'"),
        ({"model": "a/b"}, "text_encoder: "),
        ({"kind": "transformers"}, "text_encoder.transformers.model"),
        (
            {"kind": "transformers", "model": "../qwen"},
            "(got '../qwen')",
        ),
        ({"kind": "transformers", "model": "a/b", "dtype": "int3"}, "dtype"),
        (
            {"kind": "transformers", "model": "a/b", "trust_remote_code": True},
            "trust_remote_code",
        ),
        ({"kind": "server", "url": "file:///etc/passwd", "model": "m"}, "url"),
        ({"kind": "server", "url": "http://127.0.0.1:1/v1"}, "text_encoder.server.model"),
        ({"kind": "server", "url": "http://127.0.0.1:1/v1", "model": "m", "api_key": "s3cret"}, "api_key"),
    ],
)
def test_wrong_text_encoder_is_refused(text_encoder: dict[str, object], value: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=re.escape(value)) as error:
        detector(text_encoder, tmp_path)
    assert "s3cret" not in str(error.value)


@pytest.mark.parametrize("model", [{}, {**ModelConfig.of_size("base").model_dump(), "ablation": "B"}])
def test_mobile_sam_weights_need_a_model_with_its_encoder(model: dict[str, object]) -> None:
    with pytest.raises(SettingsError, match="mobile-sam"):
        validate_settings(DetectorSettings, {"start": "mobile-sam", "model": model}, "the test")
    base = ModelConfig.of_size("base").model_dump()
    assert (
        validate_settings(DetectorSettings, {"start": "mobile-sam", "model": base}, "the test").start
        == "mobile-sam"
    )


@pytest.mark.parametrize(
    ("start", "model"),
    [
        ("imagenet-lite", {}),
        ("imagenet-lite", {"backbone": "efficientnet-lite0", "ablation": "B"}),
        ("warm", {"backbone": "efficientnet-lite0"}),
        ("scratch", {"backbone": "efficientnet-lite0"}),
    ],
)
def test_imagenet_weights_and_their_backbone_need_each_other(start: str, model: dict[str, object]) -> None:
    with pytest.raises(SettingsError, match="efficientnet-lite0"):
        validate_settings(DetectorSettings, {"start": start, "model": model}, "the test")
    right = {"start": "imagenet-lite", "model": {"backbone": "efficientnet-lite0"}}
    assert validate_settings(DetectorSettings, right, "the test").start == "imagenet-lite"
