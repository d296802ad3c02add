"""What ruff's rules do not find of code that could run a stranger's; `make lint` runs this file, without torch."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
FORBIDDEN = {"trust_remote_code": False, "allow_pickle": False}
"""Keywords that no call may have with another value."""
NEEDED = {
    r"^torch\.load$": {"weights_only": True},
    r"(Auto\w+|PreTrainedTokenizerFast)\.from_(config|pretrained)$": {"trust_remote_code": False},
    r"^torch\.hub\.load$": {"never": True},
}
"""Keywords that calls of some names must have."""


def unsafe_calls(code: str) -> Iterator[str]:
    """Calls that could run code of whoever wrote the file that they read."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Call):
            given = {str(word.arg): getattr(word.value, "value", ...) for word in node.keywords}
            needed = {key: safe for key, safe in FORBIDDEN.items() if key in given}
            for pattern, keywords in NEEDED.items():
                needed |= keywords if re.search(pattern, ast.unparse(node.func)) else {}
            if any(given.get(key) is not safe for key, safe in needed.items()):
                yield ast.unparse(node)


def unescaped(template: str) -> list[str]:
    """Expressions of a template that are marked as safe, whatever they hold."""
    return re.findall(r"\{\{[^}]*\|\s*safe\b[^}]*\}\}|\{%-?\s*autoescape false", template)


@pytest.mark.parametrize(
    ("code", "is_unsafe"),
    [
        ("torch.load(file)", True),
        ("torch.load(file, weights_only=False)", True),
        ("torch.load(file, weights_only=True)", False),
        ("json.load(file)", False),
        ("numpy.load(file, allow_pickle=True)", True),
        ("torch.hub.load('a/b', 'c')", True),
        ("transformers.AutoModel.from_config(configuration)", True),
        ("transformers.AutoModel.from_pretrained(name, trust_remote_code=trust)", True),
        ("transformers.AutoModel.from_pretrained(name, trust_remote_code=False)", False),
        ("anything(trust_remote_code=True)", True),
    ],
)
def test_unsafe_calls_are_found(code: str, is_unsafe: bool) -> None:
    assert bool([*unsafe_calls(code)]) == is_unsafe


def test_unescaped_expressions_are_found() -> None:
    assert unescaped("<b>{{ name | safe }}</b>")
    assert not unescaped("{{ name }} is safe")


def test_there_is_no_unsafe_call_and_no_unescaped_expression() -> None:
    files = [*REPOSITORY.glob("src/**/*.py"), *REPOSITORY.glob("scripts/*.py")]
    templates = [*REPOSITORY.glob("src/**/*.jinja")]
    assert len(files) > 100
    assert len(templates) > 3
    assert [f"{file}: {call}" for file in files for call in unsafe_calls(file.read_text(encoding="utf-8"))] == []
    assert [f"{file}: {part}" for file in templates for part in unescaped(file.read_text(encoding="utf-8"))] == []
