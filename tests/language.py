"""Texts made up on the spot, and networks of a few thousand parameters that read them, as Hugging Face folders."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

WORDS = {
    "bad": ["끔찍해", "지루하다", "awful", "dull", "boring", "최악"],
    "good": ["최고", "좋아요", "great", "lovely", "재미있다", "sharp"],
    "odd": ["이상해", "weird", "strange", "뭐지", "curious", "¿qué"],
}
FILLERS = ["the", "film", "영화", "was", "정말", "a", ",", "이", "and", "."]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
SMALL = {"vocab_size": 64, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "num_hidden_layers": 2}
DEEP = {**SMALL, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24, "max_position_embeddings": 40}
DROPOUT = {"hidden_dropout_prob": 0.2, "attention_probs_dropout_prob": 0.2}
NETWORKS: dict[str, dict[str, Any]] = {
    "bert": {**DEEP, **DROPOUT},
    "roberta": {**DEEP, **DROPOUT},
    "distilbert": {"vocab_size": 64, "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24, "pad_token_id": 0},
    "electra": {**DEEP, **DROPOUT, "embedding_size": 12},  # a projection between embeddings and layers
    "deberta": {**DEEP, "relative_attention": True, "pos_att_type": ["c2p", "p2c"]},
    "deberta-v2": {**DEEP, "relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_buckets": 8},
    "albert": {**DEEP, "embedding_size": 12},  # one layer, several times
    "mpnet": DEEP,
    "modernbert": {**DEEP, "cls_token_id": 2, "sep_token_id": 3},  # local and global attention take turns
    "gpt2": {"vocab_size": 64, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 40, "pad_token_id": 0},
    "llama": {**DEEP, "num_key_value_heads": 1},
    "qwen2": {**DEEP, "num_key_value_heads": 1},
    "gemma2": {**DEEP, "num_key_value_heads": 1, "head_dim": 8},
    "opt": {**DEEP, "ffn_dim": 24, "word_embed_proj_dim": 16},
    "xlm": {"vocab_size": 64, "emb_dim": 16, "n_layers": 2, "n_heads": 2, "pad_token_id": 0},  # no module is a layer
    "flaubert": {"vocab_size": 64, "emb_dim": 16, "n_layers": 2, "n_heads": 2, "pad_token_id": 0},
    "longformer": {**DEEP, "attention_window": [4, 4]},
}
"""By `model_type`, the settings of a small one."""


def texts(folder: Path, per_class: int = 12, name: str = "reviews.csv") -> Path:
    """`folder`/reviews.csv with the columns text and label; fields hold quotes, commas and newlines."""
    generator = np.random.default_rng(0)
    file = folder / name
    folder.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="", encoding="utf-8") as opened:
        rows = csv.writer(opened)
        rows.writerow(["text", "label"])
        for number in range(per_class):
            for label, words in WORDS.items():
                drawn = [*generator.choice(FILLERS, 3 + number), *generator.choice(words, 3)]
                end = ['"!"', "\n", "\U0001f600"][number % 3]
                rows.writerow([" ".join(map(str, generator.permutation(drawn))) + end, label])
    return file


def pairs(folder: Path, per_class: int = 12) -> Path:
    """`folder`/pairs.csv with the columns first, second, same (yes or no) and writer: are both texts of one kind?"""
    generator = np.random.default_rng(0)
    file, kinds = folder / "pairs.csv", list(WORDS)
    folder.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="", encoding="utf-8") as opened:
        rows = csv.writer(opened)
        rows.writerow(["first", "second", "same", "writer"])
        for number in range(2 * per_class):
            chosen = generator.choice(kinds, 2, replace=False).tolist()
            said = [
                " ".join(map(str, [*generator.choice(FILLERS, length), generator.choice(WORDS[kind])]))
                for kind, length in zip(chosen if number % 2 else chosen[:1] * 2, (2 + number % 9, 3), strict=True)
            ]
            rows.writerow([*said, ("yes", "no")[number % 2], f"writer {number // 3}"])
    return file


def pretrained(folder: Path, kind: str = "bert", **settings: Any) -> Path:
    """A Hugging Face folder of a small network with random weights and a tokenizer of words."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    configuration = transformers.AutoConfig.for_model(kind, **{**NETWORKS[kind], **settings})
    transformers.AutoModel.from_config(configuration).save_pretrained(folder)
    _tokenizer(transformers).save_pretrained(folder)
    return folder


def _tokenizer(transformers: Any) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = [*SPECIAL, *FILLERS, *(word for words in WORDS.values() for word in words)]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", model_max_length=40
    )
