"""Samples as they are typed for the runner of exported networks."""

import io
import sys
from pathlib import Path

import pytest

from thaw.exporting.run_onnx import decision, read_samples


def test_lines_of_files_and_of_standard_input_are_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt").write_bytes("so\u2028so\r\n최악\n".encode())
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"great\nfilm"), encoding="ascii"))
    assert read_samples(["a text", str(tmp_path / "a.txt"), "-"], takes_texts=True) == [
        *("a text", "so\u2028so", "최악"),
        *("great", "film"),
    ]


def test_an_existing_path_is_never_a_text(tmp_path: Path) -> None:
    file = tmp_path / "reviews.csv"
    file.write_text("text\nso\n")
    assert read_samples([str(file)], takes_texts=False) == [str(file)]
    for path in (file, tmp_path):
        with pytest.raises(ValueError, match=f"{path} is a file or folder, and no text: name a .txt file, or - "):
            read_samples([str(path)], takes_texts=True)


def test_labels_are_set_from_their_thresholds_on() -> None:
    probabilities = {"cat": 0.3, "dog": 0.5, "fox": 0.7}
    assert decision(probabilities, None) == {"label": "fox"}
    assert decision(probabilities, [0.2, 0.5, 0.8]) == {"labels": ["cat", "dog"]}
    assert decision(probabilities, [0.9, 0.9, 0.9]) == {"labels": []}
