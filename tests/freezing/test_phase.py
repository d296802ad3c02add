import pytest

from thaw.freezing.phase import Phase, Plan
from thaw.freezing.plans import chain_thaw, explicit, full, gradual, head_only, probe_then_full, surgical

STAGES = ("stem", "layer1", "layer2", "head")


def test_a_phase_lasts_its_epochs_and_the_last_one_for_ever() -> None:
    plan = Plan(probe_then_full(STAGES, probe_epochs=2, full_epochs=3), STAGES)
    assert plan.total_epochs == 5
    assert [len(plan.trained(epoch)) for epoch in range(7)] == [1, 1, 4, 4, 4, 4, 4]
    assert [plan.frozen_prefix(epoch) for epoch in range(5)] == [3, 3, 0, 0, 0]
    assert [plan.start(epoch) for epoch in range(7)] == [0, 0, 2, 2, 2, 2, 2]
    assert [plan.index(epoch) for epoch in range(7)] == [0, 0, 1, 1, 1, 1, 1]
    assert [plan.in_last_phase(epoch) for epoch in range(4)] == [False, False, True, True]


def test_head_only_full_and_surgical_have_one_phase() -> None:
    assert Plan(head_only(STAGES, 4), STAGES).trained(0) == {"head"}
    assert Plan(full(STAGES, 4), STAGES).trained(3) == set(STAGES)
    assert Plan(surgical(STAGES, 4, ["layer*"]), STAGES).trained(0) == {"layer1", "layer2"}


def test_gradual_adds_one_stage_a_phase_from_the_head_down() -> None:
    plan = Plan(gradual(STAGES, epochs_per_stage=1), STAGES)
    assert [plan.frozen_prefix(epoch) for epoch in range(4)] == [3, 2, 1, 0]


def test_chain_thaw_trains_each_stage_alone_then_all() -> None:
    plan = Plan(chain_thaw(STAGES, epochs_per_stage=1), STAGES)
    alone = [["head"], ["stem"], ["layer1"], ["layer2"]]
    assert [sorted(plan.trained(epoch)) for epoch in range(5)] == [*alone, sorted(STAGES)]
    twice = Plan(chain_thaw(STAGES, epochs_per_stage=1, rounds=2), STAGES)
    assert [sorted(twice.trained(epoch)) for epoch in range(9)] == [*alone, *alone, sorted(STAGES)]
    with pytest.raises(ValueError, match=r"type freezing.rounds=1"):
        chain_thaw(STAGES, epochs_per_stage=1, rounds=0)


def test_explicit_phases_say_which_keys_they_take() -> None:
    phases = explicit(STAGES, [{"epochs": 1, "train": ["head"]}, {"epochs": 2, "train": ["*"], "lr_scale": 0.1}])
    assert phases == [Phase(1, ("head",)), Phase(2, ("*",), 0.1)]
    with pytest.raises(ValueError, match="phase 1 has the keys epoch, train"):
        explicit(STAGES, [{"epoch": 1, "train": ["head"]}])
    with pytest.raises(ValueError, match=r"not 'head': type train=\[head\]"):
        explicit(STAGES, [{"epochs": 1, "train": "head"}])
    with pytest.raises(ValueError, match=r"not 'head': type train=\[head\]"):
        surgical(STAGES, 1, "head")
    with pytest.raises(ValueError, match=r"lasts 1.5 epochs"):
        Plan([Phase(1.5, ("head",))], STAGES)  # type: ignore[arg-type]


def test_every_fault_is_named_with_the_stages_to_choose_from() -> None:
    with pytest.raises(ValueError, match="layer3") as error:
        Plan([Phase(1, ("layer3",)), Phase(0, ("head",)), Phase(1, ()), Phase(1, ("*",), lr_scale=0.0)], STAGES)
    message = str(error.value)
    assert "phase 1: no stage matches 'layer3'" in message
    assert "phase 2 lasts 0 epochs: take a whole number from 1 on" in message
    assert "phase 3 trains nothing" in message
    assert "phase 4: `lr_scale` is above 0, not 0.0" in message
    assert "stem, layer1, layer2, head" in message
    with pytest.raises(ValueError, match="at least one phase"):
        Plan([], STAGES)
