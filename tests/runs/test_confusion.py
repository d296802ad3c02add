from pathlib import Path

from thaw.runs.confusion import Confusion, confusion_csv, read_confusion


def test_a_confusion_matrix_comes_back_from_its_file_whatever_the_names(tmp_path: Path) -> None:
    whole = Confusion(["red, dark", 'the "other"', "\udcff"], [[3, 1, 0], [0, 12, 2], [0, 0, 5]])
    text = confusion_csv(whole)
    assert text.splitlines()[1] == '"red, dark",3,1,0'
    file = tmp_path / "confusion.csv"
    file.write_text(text + "\n", encoding="utf-8", errors="surrogateescape")
    assert read_confusion(file) == whole
