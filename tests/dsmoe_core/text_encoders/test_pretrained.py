"""Language models by transformers: what decides their vectors, their name, and what goes wrong."""

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
def own(language_model: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(language_model, tmp_path / "own"))


@pytest.mark.parametrize("kind", ["qwen2", "llama"])
def test_it_is_the_mean_of_the_last_hidden_state_over_the_tokens(kind: str, tmp_path: Path) -> None:
    """One text at a time, unpadded; the tokens are those of tokenizer.json, whatever class is named."""
    from transformers import AutoModel

    folder = write_language_model(tmp_path, kind=kind)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    network = AutoModel.from_pretrained(folder, dtype=torch.float32)
    wanted = []
    for text in TRAINING_TEXTS:
        ids = tokenizer.encode(text).ids
        assert tokenizer.decode(ids) == text
        with torch.no_grad():
            mean = network(torch.tensor([ids])).last_hidden_state[0].mean(0)
        wanted.append(mean / mean.norm())
    torch.testing.assert_close(
        encoder(folder).encode(TRAINING_TEXTS), torch.stack(wanted), atol=1e-5, rtol=1e-4
    )


@pytest.mark.parametrize("kind", ["qwen2", "gpt2"])  # relative and absolute positions
def test_the_side_of_the_padding_changes_nothing(kind: str, tmp_path: Path) -> None:
    left, right = (write_language_model(tmp_path / side, kind=kind, side=side) for side in ("left", "right"))
    texts = ["a gap", "a thin line " * 9]
    torch.testing.assert_close(encoder(left).encode(texts), encoder(right).encode(texts))
    torch.testing.assert_close(encoder(left).encode(texts)[0], encoder(right).encode(texts[:1])[0])


def test_half_the_memory_gives_nearly_the_same_vectors(language_model: Path) -> None:
    whole, half = (encoder(language_model, dtype).encode(TRAINING_TEXTS) for dtype in ("float32", "bfloat16"))
    assert half.dtype == torch.float32
    assert not torch.equal(half, whole)
    assert (half * whole).sum(-1).min() > 0.999


def test_the_name_is_the_content_s(own: Path, language_model: Path) -> None:
    name = encoder(own).name
    assert name == encoder(language_model).name
    assert name.startswith("folder@")
    assert name.endswith("/mean/unit/float32")
    (own / "README.md").write_text("of no weight")
    assert encoder(own).name == name
    assert encoder(own, "bfloat16").name != name


@pytest.mark.parametrize("file", [WEIGHTS, "config.json", "tokenizer.json", "tokenizer_config.json"])
def test_another_file_another_name_and_no_vector_from_the_cache(own: Path, tmp_path: Path, file: str) -> None:
    before = encoder(own)
    cached = CachedTextEncoder(before, tmp_path / "cache").encode(TRAINING_TEXTS)
    if file == WEIGHTS:
        tensors = load_file(own / file)
        save_file({k: v * 2 for k, v in tensors.items()}, own / file, {"format": "pt"})
    elif file == "config.json":
        (own / file).write_text(json.dumps({**json.loads((own / file).read_text()), "rms_norm_eps": 0.1}))
    else:
        (own / file).write_text((own / file).read_text() + "\n")  # nobody can tell what a change does
    after = encoder(own)
    assert after.name != before.name
    vectors = CachedTextEncoder(after, tmp_path / "cache").encode(TRAINING_TEXTS)
    assert torch.equal(vectors, after.encode(TRAINING_TEXTS))
    assert torch.equal(vectors, cached) == file.startswith("tokenizer")


def test_the_width_is_known_without_the_weights(own: Path) -> None:
    (own / WEIGHTS).unlink()
    lacking = encoder(own)
    assert lacking.width == WIDTH
    for use in (lambda: lacking.name, lambda: lacking.encode(TRAINING_TEXTS)):
        with pytest.raises(
            PrerequisiteError, match=r"no whole model in a folder.* \(no \*\.safetensors in it\)"
        ):
            use()


def test_a_model_of_the_hub_is_named_by_its_commit(
    language_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hub's cache, as a download leaves it; main has moved on since the older commit."""
    from huggingface_hub import constants

    commits = {"main": "a" * 40, "v1": "b" * 40}
    cache = tmp_path / "models--acme--words"
    for (revision, commit), seed in zip(commits.items(), (0, 1), strict=True):
        write_language_model(cache / "snapshots" / commit, seed=seed)
        (cache / "refs").mkdir(exist_ok=True)
        (cache / "refs" / revision).write_text(commit)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    now, pinned, older = (
        PretrainedEncoder("acme/words", revision=r, dtype="float32", device_map="cpu")
        for r in (None, "b" * 40, "v1")
    )
    assert now.name == "acme/words@aaaaaaaaaaaa/mean/unit/float32"
    assert pinned.name == older.name == "acme/words@bbbbbbbbbbbb/mean/unit/float32"
    assert now.width == WIDTH
    torch.testing.assert_close(now.encode(TRAINING_TEXTS), encoder(language_model).encode(TRAINING_TEXTS))
    assert torch.equal(older.encode(TRAINING_TEXTS), pinned.encode(TRAINING_TEXTS))
    assert not torch.equal(older.encode(TRAINING_TEXTS), now.encode(TRAINING_TEXTS))


def test_a_model_in_several_files(language_model: Path, tmp_path: Path) -> None:
    """As large ones come."""
    from transformers import AutoModelForCausalLM

    whole = AutoModelForCausalLM.from_pretrained(language_model, dtype=torch.bfloat16)
    whole.save_pretrained(tmp_path, max_shard_size="60KB")
    for file in language_model.glob("tokenizer*.json"):
        shutil.copy(file, tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert torch.equal(
        encoder(tmp_path).encode(TRAINING_TEXTS), encoder(language_model).encode(TRAINING_TEXTS)
    )


@pytest.mark.parametrize("model", ["acme/unheard-of", "/no/such/folder", "no name at all"])
def test_a_model_that_is_nowhere(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    lost = PretrainedEncoder(model)  # nothing is looked for yet
    with pytest.raises(
        PrerequisiteError, match=f"text encoder {model} is no .* nor on a hub in reach"
    ) as error:
        _ = lost.width
    assert "Give a folder with config.json" in error.value.remedy


def test_a_full_disk_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def full(*_: object, **__: object) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", full)
    with pytest.raises(OSError, match="No space left"):
        _ = PretrainedEncoder("acme/words").width


def test_pickled_weights_are_never_read(own: Path) -> None:
    torch.save(load_file(own / WEIGHTS), own / "pytorch_model.bin")
    (own / WEIGHTS).unlink()
    with pytest.raises(PrerequisiteError, match="safetensors"):
        encoder(own).encode(TRAINING_TEXTS)


def test_code_that_comes_with_a_model_is_not_run(own: Path) -> None:
    config = json.loads((own / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config", "AutoModel": "mine.Model"}}
    (own / "config.json").write_text(json.dumps(config))
    (own / "mine.py").write_text("raise SystemExit('was run')")
    with pytest.raises(ModelError, match="a model with code of its own is not run"):
        _ = encoder(own).width


def test_torn_and_partial_weights_are_refused(own: Path) -> None:
    tensors = load_file(own / WEIGHTS)
    lacking = {k: v for k, v in tensors.items() if "layers.1.mlp" not in k}
    save_file(lacking, own / WEIGHTS, {"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks weights: layers\.1\.mlp"):
        encoder(own).encode(TRAINING_TEXTS)
    (own / WEIGHTS).write_bytes(b"torn")
    with pytest.raises(ModelError, match="cannot be loaded"):
        encoder(own).encode(TRAINING_TEXTS)


def test_a_text_of_nothing_is_refused(language_model: Path) -> None:
    with pytest.raises(DataError, match="text '' has no token"):
        encoder(language_model).encode(["a gap", ""])


def test_a_device_that_is_none(language_model: Path) -> None:
    with pytest.raises(ModelError, match="device_map"):
        PretrainedEncoder(language_model, device_map="toaster").encode(TRAINING_TEXTS)


def test_spreading_over_devices_names_the_package_it_needs(
    language_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(PrerequisiteError, match=r"dsmoe\[scale\]"):
        PretrainedEncoder(language_model, device_map="auto").encode(TRAINING_TEXTS)


def test_spreading_over_devices_changes_nothing(language_model: Path) -> None:
    pytest.importorskip("accelerate", reason="an extra, dsmoe[scale]")
    spread = PretrainedEncoder(language_model, dtype="float32", device_map="auto").encode(TRAINING_TEXTS)
    torch.testing.assert_close(spread, encoder(language_model).encode(TRAINING_TEXTS), atol=1e-4, rtol=1e-3)
