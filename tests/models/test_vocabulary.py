import os
import subprocess
import sys
from itertools import product

import pytest

from thaw.models.vocabulary import TextCutter, token_ids

tokenizers = pytest.importorskip("tokenizers")


def tokens(tokenizer: str, text: str) -> list[str]:
    return tokenizers.Tokenizer.from_str(tokenizer).encode(text).tokens


def test_texts_are_cut_at_spaces_and_punctuation_in_lower_case() -> None:
    assert TextCutter().cut("Don't\tSTOP... 영화다!\n") == ["don", "'", "t", "stop", "...", "영화다", "!"]
    assert TextCutter().cut("e\u0301te\u0301") == ["\u00e9t\u00e9"]  # however it was typed


def test_frequent_words_come_first_and_ties_in_the_order_of_their_characters() -> None:
    assert TextCutter().words(["b c", "a c 나", "가"]) == ["c", "a", "b", "가", "나"]


def test_words_that_are_not_known_are_unknown() -> None:
    made = TextCutter().word_tokenizer(["cat", "the", "mat"], size=4)
    assert list(token_ids(made).items()) == [("[PAD]", 0), ("[UNK]", 1), ("cat", 2), ("the", 3)]
    assert tokens(made, "The mat, CAT") == ["the", "[UNK]", "[UNK]", "cat"]


def test_pieces_spell_new_words_out() -> None:
    made = TextCutter().piece_tokenizer(["재미있는 영화", "재미없는 영화", "영화가"], size=20)
    assert tokens(made, "영화는") == ["▁영화", "는"]
    assert tokens(made, "x") == ["▁", "[UNK]"]


PROGRAM = """
from thaw.models.vocabulary import TextCutter
cutter, texts = TextCutter(), {texts!r}
print(ascii(cutter.word_tokenizer(cutter.words(texts), 60)), ascii(cutter.piece_tokenizer(texts, 120)))
"""


def test_it_is_the_same_in_every_process() -> None:
    texts = ["".join(letters) for letters in product("abc가나", repeat=3)]  # ties everywhere
    program = PROGRAM.format(texts=texts)
    made = [
        subprocess.run(
            [sys.executable, "-c", program], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2", "3")
    ]
    assert made[0] == made[1] == made[2]


def test_the_error_without_the_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ValueError, match=r'needs tokenizers: type pip install -e "\.\[text\]"'):
        TextCutter()
