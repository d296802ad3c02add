import ast
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from tests.reporting.pictures.drawn import AWKWARD, predictions
from thaw.reporting.pictures import style
from thaw.reporting.pictures.confusion import confusion_matrix
from thaw.reporting.pictures.histograms import stage_histograms
from thaw.reporting.pictures.images import image_grid
from thaw.reporting.pictures.importance import importance_bars
from thaw.reporting.pictures.learning_curves import learning_curves
from thaw.reporting.pictures.parallel_coordinates import parallel_coordinates
from thaw.reporting.pictures.pareto import pareto
from thaw.reporting.pictures.phases import PhaseSpan
from thaw.reporting.pictures.precision_recall import precision_recall
from thaw.reporting.pictures.rates import stage_rates
from thaw.reporting.pictures.render import svg
from thaw.reporting.pictures.trial_curves import trial_curves

PICTURES: dict[str, Callable[[Sequence[str]], Figure]] = {
    "confusion": lambda names: confusion_matrix(*predictions(60, len(names)), names),
    "precision_recall": lambda names: precision_recall(*predictions(60, len(names)), names),
    "learning_curves": lambda names: learning_curves(
        {n: {n: [(0, 1.0)] for n in names} for n in names[:3]}, [PhaseSpan(0, 0, names[0])]
    ),
    "images": lambda names: image_grid([np.zeros((5, 5), np.uint8)] * len(names), names, [True] * len(names)),
    "histograms": lambda names: stage_histograms({n: ([1, 2], [0, 1, 2]) for n in names}, names[2]),
    "rates": lambda names: stage_rates({n: [(0, 0.1)] for n in names}, [PhaseSpan(0, 0, names[2])]),
    "parallel": lambda names: parallel_coordinates(
        [{"name": n, names[2]: 1, names[0]: 0.5} for n in names], names[0], "max"
    ),
    "importance": lambda names: importance_bars({n: i / 100 for i, n in enumerate(names)}),
    "pareto": lambda names: pareto(names, range(len(names)), range(len(names)), names[2], "max"),
    "trial_curves": lambda names: trial_curves({n: [(0, 1.0)] for n in names}, names[2], names[0], names[1:3]),
}


@pytest.mark.parametrize("picture", PICTURES.values(), ids=PICTURES)
def test_any_name_can_be_drawn_by_anyone(picture: Callable[[Sequence[str]], Figure]) -> None:
    # As TensorBoard draws it, without our own functions; a warning fails the test.
    before = dict(matplotlib.rcParams)
    figure = picture(AWKWARD)
    FigureCanvasAgg(figure).draw()
    svg(figure, "any")
    assert dict(matplotlib.rcParams) == before


def test_a_dollar_is_a_dollar() -> None:
    def width(name: str) -> float:
        figure = confusion_matrix([0], [[1.0, 0.0]], [name, "other"])
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        label = next(text for text in figure.findobj(Text) if text.get_text() == name)
        return label.get_window_extent(canvas.get_renderer()).width

    assert width("$aaaa$") > width("aaaa") + 5


def test_each_script_has_the_first_font_that_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(style, "get_font_names", lambda: ["NanumGothic", "DejaVu Sans", "PingFang SC", "Papyrus"])
    style.font_families.cache_clear()
    assert style.font_families() == ["DejaVu Sans", "NanumGothic", "PingFang SC", "sans-serif"]
    monkeypatch.setattr(style, "get_font_names", lambda: ["Noto Sans CJK JP", "DejaVu Sans", "PingFang SC"])
    style.font_families.cache_clear()
    assert style.font_families() == ["DejaVu Sans", "Noto Sans CJK JP", "sans-serif"]  # one font for three scripts
    figure = confusion_matrix([0], [[1.0, 0.0]], ["고양이", "other"])
    FigureCanvasAgg(figure).draw()
    assert all(text.get_fontfamily() == style.font_families() for text in figure.findobj(Text))
    monkeypatch.undo()
    style.font_families.cache_clear()
    assert set(style.font_families()[:-1]) <= set(font_manager.get_font_names())


def test_pictures_are_made_of_arrays_alone() -> None:
    allowed = {*sys.stdlib_module_names, "numpy", "matplotlib", "sklearn"}
    files = list(Path(style.__file__).parent.glob("*.py"))
    assert len(files) > 10
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                assert "pyplot" not in {node.module, *(name.name for name in node.names)}
                own = str(node.module).startswith("thaw.reporting.pictures.")
                assert own or str(node.module).split(".")[0] in allowed, (file.name, node.module)
            elif isinstance(node, ast.Import):
                assert {name.name for name in node.names} <= allowed, file.name
