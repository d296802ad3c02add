"""Arguments to paste arrive as they were, through a shell, Hydra and OmegaConf."""

import shlex
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from thaw.arguments import for_hydra, for_shell, literal

PARSER = OverridesParser.create()
TRICKY = st.text(alphabet=st.sampled_from("a\\\"'${}$ {,#@!?\n=x:[]()\té~`|&;*<>-+%1."), max_size=9)


@given(TRICKY | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
@example("what's up, doc? #1 @home ${x}")
@example("null")
@example("1e3")
@example("")
def test_any_value_arrives_as_it_was(text: str) -> None:
    (argument,) = shlex.split(for_shell("run", text))
    override = PARSER.parse_override(argument)
    config = OmegaConf.create({"run": override.value()})
    assert override.key_or_group == "run"
    assert not override.is_sweep_override()
    assert config.run == text
    assert OmegaConf.create(OmegaConf.to_yaml(config)).run == text, "as a run folder keeps it"


KEYS = st.from_regex(r"[a-z]([a-z_ ()\[\]{}:=,\\-]{0,6}[a-z])?", fullmatch=True).filter(
    lambda key: key not in ("true", "null")
)
SIMPLE = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TRICKY


@given(st.recursive(SIMPLE, lambda parts: st.lists(parts, max_size=3) | st.dictionaries(KEYS, parts, max_size=3)))
@example({"a b": [1e-5, True, None, "true", Path("x")]})
def test_any_python_value_arrives_as_it_was(value: object) -> None:
    override = PARSER.parse_override(f"key={literal(value)}")
    expected = (
        {"a b": [1e-5, True, None, "true", "x"]} if value == {"a b": [1e-5, True, None, "true", Path("x")]} else value
    )
    assert OmegaConf.to_container(OmegaConf.create({"key": override.value()}), resolve=True)["key"] == expected


@pytest.mark.parametrize("value", ["/runs/2026-01-31_12-00-00-042117", "runs/a.b", Path("/x"), "test"])
def test_simple_values_stay_as_they_are(value: object) -> None:
    assert for_shell("run", value) == f"run={value}"


def test_odd_values_can_be_read() -> None:
    assert for_shell("run", "/my runs/1") == "'run=\"/my runs/1\"'"
    assert for_hydra("run", 'a "b"') == r'run="a \"b\""'
