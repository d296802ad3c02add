import numpy as np
import pytest
from matplotlib.patches import StepPatch

from tests.reporting.pictures.drawn import texts
from thaw.reporting.pictures.histograms import OVERLAP, stage_histograms

RANDOM = np.random.default_rng(0)


def test_stages_are_rows_from_top_to_bottom_with_the_density_of_their_values() -> None:
    values = {name: np.histogram(RANDOM.normal(0, width, 999), 20) for name, width in (("stem", 1), ("head", 3))}
    values["stem"] = ([2, 6, 2], [-1, 0, 3, 4])  # bins of different widths
    figure = stage_histograms(values, "weights")
    (axes,) = figure.axes
    filled = {
        patch.get_label(): patch.get_data()
        for patch in axes.patches
        if isinstance(patch, StepPatch) and patch.get_fill()
    }
    heights, edges, baseline = filled["stem"]
    assert (baseline, edges.tolist()) == (1, [-1, 0, 3, 4])
    assert (heights - 1).tolist() == pytest.approx([OVERLAP, OVERLAP, OVERLAP])  # 2 in each unit
    heights, edges, baseline = filled["head"]
    assert baseline == 0
    np.testing.assert_allclose(heights / OVERLAP, values["head"][0] / max(values["head"][0]))
    assert {"weights", "stem", "head", "1.5 ± 1.26"} <= set(texts(figure))


def test_a_stray_value_does_not_narrow_the_rest() -> None:
    stray = np.concatenate([RANDOM.normal(0, 0.1, 5000), [50.0]])
    figure = stage_histograms({"head": np.histogram(stray, 5000)}, "weights")
    assert figure.axes[0].get_xlim()[1] < 1


def test_a_stage_without_a_spread_or_a_value_is_shown_too() -> None:
    figure = stage_histograms({"none": ([0, 0], [0, 1, 2]), "zero": ([9], [0, 0]), "nan": ([1], [0, np.nan])}, "biases")
    assert texts(figure).count("no values") == 2
    assert "0 ± 0" in texts(figure)
    assert texts(stage_histograms({}, "biases")) == ["biases: no stages"]
    with pytest.raises(ValueError, match=r"head: counts are \(K,\) and edges \(K \+ 1,\), not \(2,\) and \(2,\)"):
        stage_histograms({"head": ([1, 2], [0, 1])}, "weights")
