"""A language model of random weights in a folder, with everything that a real one brings: 100 kB."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

WIDTH = 64
TRAINING_TEXTS = [
    "a gap in a copper trace",
    "a thin spur of copper at the edge of a pad",
    "a scratch across the foil",
]


THOUGHT = ["<think>", "</think>"]
END = "<end>"
TALK = (
    "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: <think>\n{% endif %}"
)


def write_language_model(
    folder: Path,
    *,
    seed: int = 0,
    kind: str = "qwen2",
    side: str = "right",
    positions: int = 1024,
    chat: bool = False,
) -> Path:
    """Write ``kind`` ForCausalLM in bfloat16, as DeepSeek's distilled models come.

    Args:
        side: where the tokenizer says to pad; it has no token to pad with.
        positions: most tokens that it reads and writes.
        talks: it has a template for conversations and the tokens around thoughts, and knows ASCII only, so
            that what it babbles is short.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = [chr(i) for i in range(33, 127)] + ["Ġ", "Ċ"] if chat else pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        TRAINING_TEXTS * 3,
        trainers.BpeTrainer(vocab_size=320, initial_alphabet=alphabet, show_progress=False),
    )
    if chat:
        tokenizer.add_tokens(THOUGHT)
        tokenizer.add_special_tokens([END])
    shape: dict[str, Any] = {
        "vocab_size": tokenizer.get_vocab_size(),
        "hidden_size": WIDTH,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": positions,
        "bos_token_id": None,
        "eos_token_id": tokenizer.token_to_id(END) if chat else None,
    }
    torch.manual_seed(seed)
    network = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **shape), dtype=torch.bfloat16)
    network.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings: dict[str, Any] = {
        "tokenizer_class": "LlamaTokenizerFast",
        "padding_side": side,
        "model_max_length": positions,
    }
    if chat:
        settings |= {"chat_template": TALK, "eos_token": END}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder
