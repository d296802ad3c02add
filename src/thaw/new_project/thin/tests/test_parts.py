"""The parts of this project, each on its own."""

import numpy as np
import torch

from my_project.certainty import certainty
from my_project.shapes import Shapes
from my_project.worst_recall import WorstRecall


def test_a_sample_is_the_same_each_time_and_unlike_others() -> None:
    shapes = Shapes(num_samples=6, noise=60)
    first, again, other = (np.asarray(shapes[index][0]) for index in (0, 0, 3))
    assert (first == again).all()
    assert (first != other).any()
    assert [shapes[index][1] for index in range(len(shapes))] == [0, 1, 2, 0, 1, 2]


def test_the_worst_recall_is_that_of_the_class_recognised_worst() -> None:
    metric = WorstRecall(num_classes=3)
    metric.update(torch.eye(3)[[0, 0, 0]], torch.tensor([0, 0, 1]))
    metric.update(torch.eye(3)[[1]], torch.tensor([1]))
    assert metric.compute() == 0.5  # one of two of class 1; class 2 has no samples


def test_the_picture_has_a_box_for_each_class() -> None:
    figure = certainty(np.array([0, 1, 1]), np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]]), ["cat", "dog"])
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["cat", "dog"]
