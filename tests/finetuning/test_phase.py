import pytest
from hypothesis import given
from hypothesis import strategies as st

from thaw.finetuning.phase import Phase, Plan
from thaw.finetuning.plans import chain_thaw, explicit, full, gradual, head_only, probe_then_full, surgical

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


NAMES = st.text("ab1_", min_size=1, max_size=4)
PATTERNS = st.one_of(st.just("*"), NAMES, NAMES.map(lambda start: f"{start}*"))


def named(stages: list[str], patterns: tuple[str, ...]) -> set[str]:
    """Stages that patterns of the three kinds above name."""
    return {
        stage
        for stage in stages
        for pattern in patterns
        if stage == pattern or (pattern.endswith("*") and stage.startswith(pattern[:-1]))
    }


@given(
    stages=st.lists(NAMES, min_size=1, max_size=6, unique=True),
    phases=st.lists(
        st.builds(Phase, st.integers(1, 4), st.lists(PATTERNS, max_size=3).map(tuple), st.floats(0.1, 2)), max_size=5
    ),
)
def test_any_plan_is_what_going_through_its_epochs_one_by_one_says(stages: list[str], phases: list[Phase]) -> None:
    stray = [p for phase in phases for p in phase.train if not named(stages, (p,))]
    if not phases or stray or not all(phase.train for phase in phases):
        with pytest.raises(ValueError, match=r"trains nothing|no stage matches|at least one phase"):
            Plan(phases, stages)
        return
    plan = Plan(phases, stages)
    timeline = [number for number, phase in enumerate(phases) for _ in range(phase.epochs)]
    assert plan.total_epochs == len(timeline)
    ever: set[str] = set()
    for epoch in range(len(timeline) + 2):
        number = timeline[min(epoch, len(timeline) - 1)]
        trained = named(stages, phases[number].train)
        ever |= trained
        assert (plan.index(epoch), plan.start(epoch)) == (number, timeline.index(number))
        assert plan.at(epoch) == phases[number]
        assert plan.in_last_phase(epoch) == (number == len(phases) - 1)
        assert plan.trained(epoch) == trained
        assert plan.frozen_prefix(epoch) == min(stages.index(stage) for stage in trained)
        assert plan.never_trained(epoch) == min(stages.index(stage) for stage in ever)
    assert plan.never_trained() == min(stages.index(stage) for stage in ever)


@given(stages=st.lists(NAMES, min_size=1, max_size=6, unique=True), epochs=st.integers(1, 3), rounds=st.integers(1, 2))
def test_every_plan_of_any_network_trains_every_stage_or_the_head_alone(
    stages: list[str], epochs: int, rounds: int
) -> None:
    for phases in (
        full(stages, epochs),
        probe_then_full(stages, 1, epochs),
        gradual(stages, epochs),
        chain_thaw(stages, epochs, rounds),
    ):
        plan = Plan(phases, stages)
        assert plan.never_trained() == 0
        assert set().union(*(plan.trained(epoch) for epoch in range(plan.total_epochs))) == set(stages)
        assert plan.trained(plan.total_epochs - 1) == set(stages)
    assert Plan(head_only(stages, epochs), stages).never_trained() == len(stages) - 1
