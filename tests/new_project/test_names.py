"""Names that a project may have; docs/errors.md has the messages."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thaw.errors import UserError
from thaw.new_project.names import NAME, require_name


def test_a_name_is_free_though_the_working_folder_has_a_module_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "birds.py").touch()
    require_name("birds")
    require_name("b")
    require_name("birds_2")


@pytest.mark.parametrize(
    "name", ["is", "tomllib", "conf", "hydra", "hydra_plugins", "hydra-core", "hydra_core", "thaw"]
)
def test_a_name_that_something_has_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=r"type (another name, such as hydra|another name|hydra_core)"):
        require_name(name)


@given(st.text(st.sampled_from("azZ90_-. é\n"), max_size=8))
def test_of_any_words_those_to_type_instead_make_a_name(words: str) -> None:
    try:
        require_name(words)
    except UserError as error:
        (instead,) = re.findall(r"type (?:another name, such as )?(\S+)$", str(error))
        assert NAME.fullmatch(instead)
