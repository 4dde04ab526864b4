"""Text encoder by transformers: vectors, name, hub models, and errors."""

from __future__ import annotations

import errno
import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_language_model import TRAINING_TEXTS, WIDTH, write_language_model
from tokenizers import Tokenizer

from dsmoe_core.errors import DataError, ModelError, PrerequisiteError
from dsmoe_core.text_encoders.cached import CachedTextEncoder
from dsmoe_core.text_encoders.pretrained import PretrainedEncoder

WEIGHTS = "model.safetensors"


def encoder(folder: Path, dtype: str = "float32") -> PretrainedEncoder:
    return PretrainedEncoder(folder, dtype=dtype, device_map="cpu")  # type: ignore[arg-type]


@pytest.fixture
def copied_model(language_model: Path, tmp_path: Path) -> Path:
    """A copy of the model that the test may change."""
    return Path(shutil.copytree(language_model, tmp_path / "copied"))


@pytest.mark.parametrize("kind", ["qwen2", "llama"])
def test_vector_is_the_normalized_mean_of_the_last_hidden_state(kind: str, tmp_path: Path) -> None:
    """The expected vectors are computed text by text without padding, with the tokens of tokenizer.json."""
    from transformers import AutoModel

    folder = write_language_model(tmp_path, kind=kind)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    network = AutoModel.from_pretrained(folder, dtype=torch.float32)
    expected = []
    for text in TRAINING_TEXTS:
        ids = tokenizer.encode(text).ids
        assert tokenizer.decode(ids) == text
        with torch.no_grad():
            mean = network(torch.tensor([ids])).last_hidden_state[0].mean(0)
        expected.append(mean / mean.norm())
    torch.testing.assert_close(
        encoder(folder).encode(TRAINING_TEXTS), torch.stack(expected), atol=1e-5, rtol=1e-4
    )


@pytest.mark.parametrize("kind", ["qwen2", "gpt2"])  # relative and absolute position embeddings
def test_padding_side_of_the_tokenizer_does_not_matter(kind: str, tmp_path: Path) -> None:
    left, right = (write_language_model(tmp_path / side, kind=kind, side=side) for side in ("left", "right"))
    texts = ["a gap", "a thin line " * 9]
    torch.testing.assert_close(encoder(left).encode(texts), encoder(right).encode(texts))
    torch.testing.assert_close(encoder(left).encode(texts)[0], encoder(right).encode(texts[:1])[0])


def test_bfloat16_gives_similar_vectors(language_model: Path) -> None:
    fp32, bf16 = (encoder(language_model, dtype).encode(TRAINING_TEXTS) for dtype in ("float32", "bfloat16"))
    assert bf16.dtype == torch.float32
    assert not torch.equal(bf16, fp32)
    assert (bf16 * fp32).sum(-1).min() > 0.999


def test_name_depends_on_the_content(copied_model: Path, language_model: Path) -> None:
    name = encoder(copied_model).name
    assert name == encoder(language_model).name
    assert name.startswith("folder@")
    assert name.endswith("/mean/unit/float32")
    (copied_model / "README.md").write_text("not a model file")
    assert encoder(copied_model).name == name
    assert encoder(copied_model, "bfloat16").name != name


@pytest.mark.parametrize("file", [WEIGHTS, "config.json", "tokenizer.json", "tokenizer_config.json"])
def test_changed_file_changes_the_name(copied_model: Path, tmp_path: Path, file: str) -> None:
    before = encoder(copied_model)
    cached = CachedTextEncoder(before, tmp_path / "cache").encode(TRAINING_TEXTS)
    if file == WEIGHTS:
        tensors = load_file(copied_model / file)
        save_file({k: v * 2 for k, v in tensors.items()}, copied_model / file, {"format": "pt"})
    elif file == "config.json":
        (copied_model / file).write_text(
            json.dumps({**json.loads((copied_model / file).read_text()), "rms_norm_eps": 0.1})
        )
    else:
        (copied_model / file).write_text((copied_model / file).read_text() + "\n")
    after = encoder(copied_model)
    assert after.name != before.name
    vectors = CachedTextEncoder(after, tmp_path / "cache").encode(TRAINING_TEXTS)
    assert torch.equal(vectors, after.encode(TRAINING_TEXTS))
    assert torch.equal(vectors, cached) == file.startswith("tokenizer")


def test_width_needs_no_weights(copied_model: Path) -> None:
    (copied_model / WEIGHTS).unlink()
    incomplete = encoder(copied_model)
    assert incomplete.width == WIDTH
    for use in (lambda: incomplete.name, lambda: incomplete.encode(TRAINING_TEXTS)):
        with pytest.raises(PrerequisiteError, match=r"\*\.safetensors"):
            use()


def test_hub_model_is_named_by_its_commit(
    language_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Uses a hub cache with two commits, main and the tag v1."""
    from huggingface_hub import constants

    commits = {"main": "a" * 40, "v1": "b" * 40}
    cache = tmp_path / "models--acme--words"
    for (revision, commit), seed in zip(commits.items(), (0, 1), strict=True):
        write_language_model(cache / "snapshots" / commit, seed=seed)
        (cache / "refs").mkdir(exist_ok=True)
        (cache / "refs" / revision).write_text(commit)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    main, pinned, tagged = (
        PretrainedEncoder("acme/words", revision=r, dtype="float32", device_map="cpu")
        for r in (None, "b" * 40, "v1")
    )
    assert main.name == "acme/words@aaaaaaaaaaaa/mean/unit/float32"
    assert pinned.name == tagged.name == "acme/words@bbbbbbbbbbbb/mean/unit/float32"
    assert main.width == WIDTH
    torch.testing.assert_close(main.encode(TRAINING_TEXTS), encoder(language_model).encode(TRAINING_TEXTS))
    assert torch.equal(tagged.encode(TRAINING_TEXTS), pinned.encode(TRAINING_TEXTS))
    assert not torch.equal(tagged.encode(TRAINING_TEXTS), main.encode(TRAINING_TEXTS))


def test_sharded_model(language_model: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    network = AutoModelForCausalLM.from_pretrained(language_model, dtype=torch.bfloat16)
    network.save_pretrained(tmp_path, max_shard_size="60KB")
    for file in language_model.glob("tokenizer*.json"):
        shutil.copy(file, tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert torch.equal(
        encoder(tmp_path).encode(TRAINING_TEXTS), encoder(language_model).encode(TRAINING_TEXTS)
    )


@pytest.mark.parametrize("model", ["acme/unheard-of", "/no/such/folder", "no name at all"])
def test_missing_model_is_refused(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    missing = PretrainedEncoder(model)  # the model is searched on first use
    with pytest.raises(PrerequisiteError, match=f"text encoder {model} ") as error:
        _ = missing.width
    assert "config.json" in error.value.remedy


def test_full_disk_error_is_not_converted(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def full(*_: object, **__: object) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", full)
    with pytest.raises(OSError, match="No space left"):
        _ = PretrainedEncoder("acme/words").width


def test_pickled_weights_are_never_read(copied_model: Path) -> None:
    torch.save(load_file(copied_model / WEIGHTS), copied_model / "pytorch_model.bin")
    (copied_model / WEIGHTS).unlink()
    with pytest.raises(PrerequisiteError, match="safetensors"):
        encoder(copied_model).encode(TRAINING_TEXTS)


def test_code_of_a_model_is_not_run(copied_model: Path) -> None:
    config = json.loads((copied_model / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config", "AutoModel": "mine.Model"}}
    (copied_model / "config.json").write_text(json.dumps(config))
    (copied_model / "mine.py").write_text("raise SystemExit('was run')")
    with pytest.raises(ModelError, match="copied"):
        _ = encoder(copied_model).width


def test_damaged_and_incomplete_weights_are_refused(copied_model: Path) -> None:
    tensors = load_file(copied_model / WEIGHTS)
    partial = {k: v for k, v in tensors.items() if "layers.1.mlp" not in k}
    save_file(partial, copied_model / WEIGHTS, {"format": "pt"})
    with pytest.raises(ModelError, match=r"layers\.1\.mlp"):
        encoder(copied_model).encode(TRAINING_TEXTS)
    (copied_model / WEIGHTS).write_bytes(b"damaged")
    with pytest.raises(ModelError, match="copied"):
        encoder(copied_model).encode(TRAINING_TEXTS)


def test_empty_text_is_refused(language_model: Path) -> None:
    with pytest.raises(DataError, match="''"):
        encoder(language_model).encode(["a gap", ""])


def test_unknown_device_is_refused(language_model: Path) -> None:
    with pytest.raises(ModelError, match="device_map"):
        PretrainedEncoder(language_model, device_map="toaster").encode(TRAINING_TEXTS)


def test_several_devices_need_accelerate(language_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(PrerequisiteError, match=r"dsmoe\[scale\]"):
        PretrainedEncoder(language_model, device_map="auto").encode(TRAINING_TEXTS)


def test_several_devices_give_the_same_vectors(language_model: Path) -> None:
    pytest.importorskip("accelerate", reason="an extra, dsmoe[scale]")
    vectors = PretrainedEncoder(language_model, dtype="float32", device_map="auto").encode(TRAINING_TEXTS)
    torch.testing.assert_close(vectors, encoder(language_model).encode(TRAINING_TEXTS), atol=1e-4, rtol=1e-3)
