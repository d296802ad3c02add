"""Copies under another name."""

import os
from pathlib import Path

import pytest

from thaw.new_project.renaming import copy_renamed, files_below, renamed
from thaw.new_project.whole import PACKAGE


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("import owl.data as owl_data", "import snow_bird.data as snow_bird_data"),
        ("OWL_CACHE Owl owl-train", "SNOW_BIRD_CACHE Snow_bird snow_bird-train"),
        ('name = "lightning-owl"', 'name = "snow_bird"'),
        ("freezing=chain_owl digits_chain_owl.yaml", "freezing=chain_unfreeze digits_chain_unfreeze.yaml"),
    ],
)
def test_a_word_is_replaced_in_every_spelling(text: str, expected: str) -> None:
    assert renamed(text, "owl", "snow_bird") == expected


def test_links_modes_and_weights_are_copied_as_they_are(tmp_path: Path) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    (source / "owl/deep").mkdir(parents=True)
    (source / "owl/run").write_text("owl")
    (source / "owl/run").chmod(0o755)
    (source / "owl/deep/link").symlink_to("../../owl")
    (source / "weights").write_bytes(weights := b"owl\xff\xfe")
    files = files_below(source)
    copy_renamed(files, source, target, "owl", "bird")
    assert [file.as_posix() for file in files_below(target)] == ["bird/deep/link", "bird/run", "weights"]
    assert (target / "bird/run").read_text() == "bird"
    assert os.access(target / "bird/run", os.X_OK)
    assert os.readlink(target / "bird/deep/link") == "../../bird"
    assert (target / "weights").read_bytes() == weights


def test_what_gitignore_names_is_left_out(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text("/runs/\n__pycache__/\n*.egg-info/\n*.ckpt\n")
    for name in (".git/0", "runs/1", "src/runs/2", "src/__pycache__/3", "src/a.egg-info/4", "b.ckpt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert files_below(tmp_path) == [Path(".gitignore"), Path("src/runs/2")]


def test_no_file_that_is_no_text_has_the_name_in_it() -> None:
    """Such as the metadata of shipped weights: copies keep them."""
    package = Path(__file__).parents[2] / "src" / PACKAGE
    weights = [file for file in files_below(package) if file.suffix == ".safetensors"]
    assert weights
    assert not [file for file in weights if PACKAGE.encode() in (package / file).read_bytes().lower()]
