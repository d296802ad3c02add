"""Tokenizers made of the texts that a network is trained on (`pip install -e ".[text]"`)."""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain, islice
from typing import Any

from thaw.errors import UserError

SPECIAL = PAD, UNKNOWN = "[PAD]", "[UNK]"
"""The first of every vocabulary, in this order."""
PAD_ID = 0


class TextCutter:
    """Cuts texts, in NFC and lower case, at whitespace and around punctuation; makes tokenizers that do the same.

    What it makes is a function of the texts alone, the same in every process. Raises UserError where the library is
    missing.
    """

    def __init__(self) -> None:
        try:
            import tokenizers
        except ImportError as error:
            raise UserError('backbone=gru needs tokenizers: type pip install -e ".[text]"') from error
        self.library = tokenizers
        normalizers = tokenizers.normalizers
        self.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
        self.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()

    def cut(self, text: str) -> list[str]:
        return [word for word, _ in self.pre_tokenizer.pre_tokenize_str(self.normalizer.normalize_str(text))]

    def as_word(self, text: str) -> str | None:
        """How texts have it; None where it is cut in two, or nothing is left."""
        words = self.cut(text)
        return words[0] if len(words) == 1 else None

    def words(self, texts: Iterable[str]) -> list[str]:
        """Each once: the most frequent first, equally frequent ones in the order of their characters."""
        count = Counter(word for text in texts for word in self.cut(text))
        return sorted(count, key=lambda word: (-count[word], word))

    def word_tokenizer(self, words: Iterable[str], size: int) -> str:
        """A tokenizer.json of the first of `words`, `size` with padding and the unknown word."""
        known = islice(dict.fromkeys(chain(SPECIAL, words)), size)
        model = self.library.models.WordLevel({word: number for number, word in enumerate(known)}, unk_token=UNKNOWN)
        return self._tokenizer(model).to_str()

    def piece_tokenizer(self, texts: Sequence[str], size: int) -> str:
        """A tokenizer.json of frequent words, and pieces of the others, down to characters (Sennrich et al. 2016)."""
        model = self.library.models.BPE(unk_token=UNKNOWN, fuse_unk=True)
        # `▁` marks where a word begins. The library's own mark, for where it goes on, makes numbers a matter of chance.
        marks = self.library.pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
        tokenizer = self._tokenizer(model, marks)
        trainer = self.library.trainers.BpeTrainer(vocab_size=size, special_tokens=[*SPECIAL], show_progress=False)
        tokenizer.train_from_iterator(texts, trainer)
        return tokenizer.to_str()

    def _tokenizer(self, model: Any, *after_the_cut: Any) -> Any:
        tokenizer = self.library.Tokenizer(model)
        tokenizer.normalizer = self.normalizer
        tokenizer.pre_tokenizer = self.library.pre_tokenizers.Sequence([self.pre_tokenizer, *after_the_cut])
        return tokenizer


def numbers(tokenizer: str) -> dict[str, int]:
    """Of each word or piece that a tokenizer.json knows, in order: 0, 1 ..."""
    from tokenizers import Tokenizer

    known = Tokenizer.from_str(tokenizer).get_vocab()
    return {word: known[word] for word in sorted(known, key=lambda word: known[word])}
