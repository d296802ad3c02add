"""Names of the files of predictions, and the count by class."""

from collections import Counter
from pathlib import Path

import pytest

from thaw.errors import UserError
from thaw.predicting.tables import MAX_LISTED, count_table, output_files


def test_every_input_has_files_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sources = ["a/new", "b/new", "new", "/b/new", "a/*.png", "b/*.png", "a/**/*.png", "b.csv", "c.csv", "so?", "so!"]
    files = [output_files(None, tmp_path / "run", source, ["x"]).csv for source in sources]
    files += [output_files(None, tmp_path / "run", "-", names).csv for names in (["so"], ["so", "so"], ["soso"])]
    assert len(set(files)) == len(files)
    assert {file.parent for file in files} == {tmp_path / "run"}
    assert files[0].stem.rsplit("_", 1)[0] == "predictions_new"
    assert output_files(None, tmp_path / "run", str(tmp_path / "a/new"), ["y"]).csv == files[0]


@pytest.mark.parametrize("output", ["file/x", "file/y/x.csv"])
def test_a_place_that_cannot_be_written_to_is_met_with_another(tmp_path: Path, output: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot be written to .*output="):
        output_files(str(tmp_path / output), tmp_path, "a", [])


def test_classes_are_counted_the_most_frequent_first() -> None:
    lines = count_table(Counter({"[b]": 1, "a": 2000}), 2001).splitlines()
    assert [line.split("│")[1:4] for line in lines if line.startswith("│")] == [
        [" a               ", "   2,000 ", " 100.0% "],
        [" [b]             ", "       1 ", "   0.0% "],
    ]
    many = count_table(Counter({f"class {number}": 1 for number in range(MAX_LISTED + 3)}), 23)
    assert many.endswith("... and 3 classes more, with fewer samples\n")
