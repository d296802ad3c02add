"""Texts and pairs of texts (premise and hypothesis, question and answer) as samples, and the columns they stand in."""

from collections.abc import Sequence

from thaw.errors import UserError

Text = str | tuple[str, str]
"""The input of a sample of text: one, or a pair."""


def parts_of(text: Text) -> tuple[str, ...]:
    """The one or two texts of a sample."""
    return (text,) if isinstance(text, str) else text


def as_one(text: Text) -> str:
    """A sample for people and for methods that take one text: a bar stands between the texts of a pair."""
    return " | ".join(parts_of(text))


def columns_of(columns: str | Sequence[str], key: str) -> list[str]:
    """The one or two columns of a table that the setting `key` names. Raises UserError if it names others."""
    names = [columns] if isinstance(columns, str) else list(map(str, columns))
    if not 1 <= len(set(names)) == len(names) <= 2:
        raise UserError(
            f"{key}=[{','.join(names)}]: expected a column, or two different ones for pairs of texts, such as "
            f"{key}=[premise,hypothesis]"
        )
    return names


def text_of(texts: Sequence[str]) -> Text:
    """The sample that consists of one or two texts."""
    return texts[0] if len(texts) == 1 else (texts[0], texts[1])
