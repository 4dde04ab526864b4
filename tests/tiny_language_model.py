"""A language model with random weights (100 kB) with all files of a real one."""

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


REASONING_TOKENS = ["<think>", "</think>"]
END_TOKEN = "<end>"
CHAT_TEMPLATE = (
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
    """Write a ForCausalLM model of architecture ``kind`` in bfloat16, the format of DeepSeek's distilled
    models.

    Args:
        side: the tokenizer's padding side; it has no padding token.
        positions: maximum number of tokens.
        chat: add a chat template and reasoning tokens, and restrict the vocabulary to ASCII, so that random
            output is short.
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
        tokenizer.add_tokens(REASONING_TOKENS)
        tokenizer.add_special_tokens([END_TOKEN])
    shape: dict[str, Any] = {
        "vocab_size": tokenizer.get_vocab_size(),
        "hidden_size": WIDTH,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": positions,
        "bos_token_id": None,
        "eos_token_id": tokenizer.token_to_id(END_TOKEN) if chat else None,
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
        settings |= {"chat_template": CHAT_TEMPLATE, "eos_token": END_TOKEN}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder
