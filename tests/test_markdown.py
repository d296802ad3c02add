"""Names inside Markdown."""

import pytest

from thaw.markdown import inline


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("golden_retriever", "golden_retriever"),
        ("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
        ("a | b", r"a \| b"),
        ("a\n\n# b", "a # b"),
        ("![x](http://y)", r"!\[x\](http://y)"),
        ("`c`", r"\`c\`"),
        (r"\|", r"\\\|"),
        (3, "3"),
    ],
)
def test_names_are_text_and_nothing_else(name: object, shown: str) -> None:
    assert inline(name) == shown
