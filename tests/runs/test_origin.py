"""What a run started from, in words."""

import pytest

from thaw.runs.origin import origin


@pytest.mark.parametrize(
    ("backbone", "init_from", "words"),
    [
        ({"name": "resnet18", "weights": "default"}, None, ("resnet18", "its default weights")),
        ({"name": "/home/me/bert", "weights": "/home/me/w.pt"}, None, ("bert", "weights w.pt")),
        ({"weights": "none"}, None, ("small", "random weights")),
        ({}, None, ("small", "random weights")),
        ({"weights": "none"}, "runs/first", ("small", "weights first")),
    ],
)
def test_names_without_folders(backbone: dict[str, str], init_from: str | None, words: tuple[str, str]) -> None:
    assert origin({"backbone": {"_target_": "my.models.small", **backbone}, "init_from": init_from}) == words
