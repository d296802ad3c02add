from torchvision import datasets

from thaw.signatures import keywords


def test_keywords_that_a_class_hands_on_to_its_bases_are_known() -> None:
    assert {"split", "train", "download"} <= set(keywords(datasets.EMNIST))
    assert "split" in keywords(datasets.ImageNet)
    assert "download" not in keywords(datasets.ImageNet)


def test_of_a_function_all_but_variadic_ones() -> None:
    def function(first: int, *others: int, last: int = 0, **more: int) -> None: ...

    assert [*keywords(function)] == ["first", "last"]
