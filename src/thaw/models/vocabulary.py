"""Tokenizers learnt from the training texts (`pip install -e ".[text]"`)."""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain, islice
from typing import Any

from thaw.errors import UserError

SPECIAL = PAD, UNKNOWN = "[PAD]", "[UNK]"
"""Padding and the unknown word: the first entries of every vocabulary."""
SEPARATOR = "[SEP]"
"""Stands between the texts of a pair; the entry behind `SPECIAL` of vocabularies for pairs."""
PAD_ID = 0


class TextCutter:
    """Splits texts into words at whitespace and punctuation, in NFC and lower case, and makes tokenizers that do so.

    The tokenizers are a function of the texts alone, the same in every process.

    Args:
        pairs: whether the tokenizers are for pairs of texts, with `SEPARATOR` between them.

    Raises:
        UserError: the tokenizers library is missing.
    """

    def __init__(self, pairs: bool = False) -> None:
        try:
            import tokenizers
        except ImportError as error:
            raise UserError('backbone=gru needs tokenizers: type pip install -e ".[text]"') from error
        self.library = tokenizers
        normalizers = tokenizers.normalizers
        self.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
        self.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
        self.special = [*SPECIAL, *([SEPARATOR] if pairs else [])]

    def cut(self, text: str) -> list[str]:
        """The words of a text, normalised."""
        return [word for word, _ in self.pre_tokenizer.pre_tokenize_str(self.normalizer.normalize_str(text))]

    def as_word(self, text: str) -> str | None:
        """A word as `cut` normalises it; None if `cut` would split it, or nothing is left of it."""
        words = self.cut(text)
        return words[0] if len(words) == 1 else None

    def words(self, texts: Iterable[str]) -> list[str]:
        """All words, the most frequent first; equally frequent ones in alphabetical order."""
        count = Counter(word for text in texts for word in self.cut(text))
        return sorted(count, key=lambda word: (-count[word], word))

    def word_tokenizer(self, words: Iterable[str], size: int) -> str:
        """A tokenizer.json of the first `words`: `size` entries, special ones included."""
        entries = islice(dict.fromkeys(chain(self.special, words)), size)
        model = self.library.models.WordLevel({word: number for number, word in enumerate(entries)}, unk_token=UNKNOWN)
        return self._tokenizer(model).to_str()

    def piece_tokenizer(self, texts: Sequence[str], size: int) -> str:
        """A tokenizer.json of `size` frequent words and pieces of words (byte-pair encoding, Sennrich et al. 2016)."""
        model = self.library.models.BPE(unk_token=UNKNOWN, fuse_unk=True)
        # `▁` marks where a word begins. With the library's own mark the numbering is not deterministic.
        marks = self.library.pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
        tokenizer = self._tokenizer(model, marks)
        trainer = self.library.trainers.BpeTrainer(vocab_size=size, special_tokens=self.special, show_progress=False)
        tokenizer.train_from_iterator(texts, trainer)
        return tokenizer.to_str()

    def _tokenizer(self, model: Any, *after_the_cut: Any) -> Any:
        tokenizer = self.library.Tokenizer(model)
        tokenizer.normalizer = self.normalizer
        tokenizer.pre_tokenizer = self.library.pre_tokenizers.Sequence([self.pre_tokenizer, *after_the_cut])
        if SEPARATOR in self.special:
            template = {"single": "$A", "pair": f"$A {SEPARATOR} $B"}
            separator = (SEPARATOR, self.special.index(SEPARATOR))
            tokenizer.post_processor = self.library.processors.TemplateProcessing(
                **template, special_tokens=[separator]
            )
        return tokenizer


def token_ids(tokenizer: str) -> dict[str, int]:
    """Token ids by word or piece of a tokenizer.json, in ascending order."""
    from tokenizers import Tokenizer  # here, because it is an extra

    ids = Tokenizer.from_str(tokenizer).get_vocab()
    return {word: ids[word] for word in sorted(ids, key=lambda word: ids[word])}
