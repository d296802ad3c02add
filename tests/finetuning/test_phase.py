from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thaw.errors import UserError
from thaw.finetuning.phase import Phase, Plan
from thaw.finetuning.plans import chain_thaw, explicit, full, gradual, head_only, probe_then_full, surgical

STAGES = ("stem", "layer1", "layer2", "head")


def addresses(stages: Iterable[str]) -> dict[str, list[str]]:
    """Of a kernel, a norm and a bias in each stage."""
    return {stage: [f"{stage}.{path}" for path in ("0.weight", "1.norm.weight", "0.bias")] for stage in stages}


def plan_of(phases: Sequence[Phase], stages: Sequence[str] = STAGES) -> Plan:
    return Plan(phases, addresses(stages))


def trained_stages(plan: Plan, epoch: int) -> set[str]:
    """The stages of which all parameters train, if no others train."""
    trained = plan.trained(epoch)
    whole = {stage for stage, own in plan.stages.items() if trained.issuperset(own)}
    assert len(trained) == 3 * len(whole)
    return whole


def test_a_phase_lasts_its_epochs_and_the_last_one_for_ever() -> None:
    plan = plan_of(probe_then_full(STAGES, epochs=5, probe_epochs=2))
    assert plan.total_epochs == 5
    assert [len(trained_stages(plan, epoch)) for epoch in range(7)] == [1, 1, 4, 4, 4, 4, 4]
    assert [plan.frozen_prefix(epoch) for epoch in range(5)] == [3, 3, 0, 0, 0]
    assert [plan.start(epoch) for epoch in range(7)] == [0, 0, 2, 2, 2, 2, 2]
    assert [plan.index(epoch) for epoch in range(7)] == [0, 0, 1, 1, 1, 1, 1]
    assert [plan.in_last_phase(epoch) for epoch in range(4)] == [False, False, True, True]


def test_a_quarter_of_the_epochs_probes_and_both_phases_have_one() -> None:
    lengths = {epochs: [phase.epochs for phase in probe_then_full(STAGES, epochs)] for epochs in (2, 3, 12, 30)}
    assert lengths == {2: [1, 1], 3: [1, 2], 12: [3, 9], 30: [7, 23]}
    for epochs, probe_epochs in ((1, None), (3, 3)):
        with pytest.raises(UserError, match=f"freezing.epochs={epochs} leaves .* type freezing.epochs={epochs + 1} or"):
            probe_then_full(STAGES, epochs, probe_epochs)


def test_head_only_full_and_surgical_have_one_phase() -> None:
    assert trained_stages(plan_of(head_only(STAGES, 4)), 0) == {"head"}
    assert trained_stages(plan_of(full(STAGES, 4)), 3) == set(STAGES)
    assert trained_stages(plan_of(surgical(STAGES, 4, ["layer*"])), 0) == {"layer1", "layer2"}


@pytest.mark.parametrize(
    ("train", "trained", "frozen_prefix"),
    [
        (["head", "*.bias"], "stem.0.bias layer1.0.bias layer2.0.bias head.0.weight head.1.norm.weight head.0.bias", 0),
        (["layer*norm*"], "layer1.1.norm.weight layer2.1.norm.weight", 1),
        (["layer1.0.weight"], "layer1.0.weight", 1),
        (["*.bias", "!stem", "!head.*"], "layer1.0.bias layer2.0.bias", 1),
        (["!stem", "!layer[12]", "!*.weight"], "head.0.bias", 3),
    ],
)
def test_patterns_match_stages_and_addresses_and_exclude(train: list[str], trained: str, frozen_prefix: int) -> None:
    plan = plan_of(surgical(STAGES, 1, train))
    assert plan.trained(0) == {*trained.split()}
    assert plan.frozen_prefix(0) == plan.never_trained() == frozen_prefix


def test_gradual_adds_one_stage_a_phase_from_the_head_down() -> None:
    plan = plan_of(gradual(STAGES, epochs_per_stage=1))
    assert [plan.frozen_prefix(epoch) for epoch in range(4)] == [3, 2, 1, 0]


@pytest.mark.parametrize(
    ("epochs", "frozen"),
    [(1, [0]), (2, [3, 0]), (3, [3, 1, 0]), (6, [3, 2, 2, 1, 0, 0]), (8, [3, 3, 2, 2, 1, 1, 0, 0])],
)
def test_gradual_shares_its_epochs_out_over_the_stages(epochs: int, frozen: list[int]) -> None:
    plan = plan_of(gradual(STAGES, epochs))
    assert [plan.frozen_prefix(epoch) for epoch in range(plan.total_epochs)] == frozen


def test_the_probe_is_what_comes_before_the_backbone_trains() -> None:
    assert plan_of(probe_then_full(STAGES, epochs=5, probe_epochs=2)).probe_epochs == 2
    assert plan_of(gradual(STAGES, epochs_per_stage=3)).probe_epochs == 3
    assert plan_of([Phase(1, ("head",)), Phase(2, ("head.*",)), Phase(1, ("layer2", "head"))]).probe_epochs == 3
    assert plan_of(head_only(STAGES, 4)).probe_epochs == plan_of(full(STAGES, 4)).probe_epochs == 0


def test_chain_thaw_trains_each_stage_alone_then_all() -> None:
    plan = plan_of(chain_thaw(STAGES, epochs_per_stage=1))
    alone = [{"head"}, {"stem"}, {"layer1"}, {"layer2"}]
    assert [trained_stages(plan, epoch) for epoch in range(5)] == [*alone, {*STAGES}]
    twice = plan_of(chain_thaw(STAGES, epochs_per_stage=1, rounds=2))
    assert [trained_stages(twice, epoch) for epoch in range(9)] == [*alone, *alone, {*STAGES}]


def test_explicit_phases_say_which_keys_they_take() -> None:
    phases = explicit(STAGES, [{"epochs": 1, "train": ["head"]}, {"epochs": 2, "train": ["*"], "lr_scale": 0.1}])
    assert phases == [Phase(1, ("head",)), Phase(2, ("*",), 0.1)]
    with pytest.raises(ValueError, match="phase 1 has the keys epoch, train"):
        explicit(STAGES, [{"epoch": 1, "train": ["head"]}])
    with pytest.raises(ValueError, match=r"not 'head': type train=\[head\]"):
        explicit(STAGES, [{"epochs": 1, "train": "head"}])
    with pytest.raises(ValueError, match=r"not '\*.bias': type train=\[\"\*.bias\"\]"):
        surgical(STAGES, 1, "*.bias")
    with pytest.raises(ValueError, match=r"lasts 1.5 epochs"):
        plan_of([Phase(1.5, ("head",))])  # type: ignore[arg-type]


def test_patterns_that_only_the_head_has_are_refused_where_it_trains_anyway() -> None:
    stages = {"layer1": ["layer1.weight"], "layer2": [], "head": ["head.weight", "head.bias"]}
    for train in (("*.bias",), ("layer1", "head.b*"), ("head", "*weight"), ("head", "!*.bias")):
        Plan([Phase(1, train)], stages)
    with pytest.raises(UserError, match=r"^phase 1: nothing matches '\*.bias' but parameters of the head") as error:
        Plan([Phase(1, ("hea?", "*.bias"))], stages)
    assert str(error.value).splitlines()[1] == (
        "the stages are: layer1, head (layer2: nothing in it may train); a parameter is named by its stage and its "
        "path: layer1.weight"
    )


def test_every_fault_is_named_with_the_stages_and_a_parameter_to_choose_from() -> None:
    phases = [("layer3", "!*.bais", "head"), ("head",), (), ("*",), ("head", "!*.bias", "!*.weight")]
    with pytest.raises(ValueError, match="layer3") as error:
        plan_of([Phase(int(n != 2), train, float(n != 4)) for n, train in enumerate(phases, start=1)])
    assert str(error.value).splitlines() == [
        "phase 1: nothing matches 'layer3'",
        "phase 1: nothing matches '!*.bais'",
        "phase 2 lasts 0 epochs: take a whole number from 1 on, or leave it out",
        "phase 3 trains nothing: name at least one stage in `train`",
        "phase 4: `lr_scale` is above 0, not 0.0: freeze stages by `train`",
        "phase 5 trains nothing: its ! patterns exclude all that the others match",
        "the stages are: stem, layer1, layer2, head; a parameter is named by its stage and its path: stem.0.bias",
    ]
    with pytest.raises(ValueError, match="at least one phase"):
        plan_of([])


NAMES = st.text("ab1_", min_size=1, max_size=4)
PATHS = st.sampled_from(["weight", "bias"])
PATTERNS = st.builds(
    str.__add__,
    st.sampled_from(["", "", "!"]),
    st.one_of(st.just("*"), NAMES, NAMES.map(lambda start: f"{start}*"), PATHS.map(lambda path: f"*.{path}")),
)


def matches(pattern: str, stage: str, path: str) -> bool:
    """Whether a pattern of the four kinds above matches a parameter."""
    if pattern.startswith("*."):
        return path == pattern[2:]
    return stage == pattern or (pattern.endswith("*") and stage.startswith(pattern[:-1]))


def named(stages: dict[str, list[str]], patterns: tuple[str, ...]) -> dict[str, set[str]]:
    """Paths of the parameters that train, by stage."""
    without = [pattern[1:] for pattern in patterns if pattern.startswith("!")]
    with_all = len(without) == len(patterns) > 0
    trained = {
        stage: {
            path
            for path in paths
            if (with_all or any(matches(pattern, stage, path) for pattern in patterns))
            and not any(matches(pattern, stage, path) for pattern in without)
        }
        for stage, paths in stages.items()
    }
    return {stage: paths for stage, paths in trained.items() if paths}


def only_in_head(stages: dict[str, list[str]], patterns: tuple[str, ...]) -> list[str]:
    """Patterns that add nothing, for all that they match is in the head, which another pattern names."""
    head = list(stages)[-1]
    named_head = [p for p in patterns if p in ("*", head) or (p.endswith("*") and head.startswith(p[:-1]))]
    others = [p for p in patterns if p not in named_head and not p.startswith("!")]
    return [p for p in others if named_head and named(stages, (p,)).keys() == {head}]


@given(
    stages=st.dictionaries(NAMES, st.lists(PATHS, min_size=1, unique=True), min_size=1, max_size=6),
    phases=st.lists(
        st.builds(Phase, st.integers(1, 4), st.lists(PATTERNS, max_size=3).map(tuple), st.floats(0.1, 2)), max_size=5
    ),
)
def test_any_plan_is_what_going_through_its_epochs_one_by_one_says(
    stages: dict[str, list[str]], phases: list[Phase]
) -> None:
    bound = {stage: [f"{stage}.{path}" for path in paths] for stage, paths in stages.items()}
    stray = [p for phase in phases for p in phase.train if not named(stages, (p.removeprefix("!"),))]
    stray += [p for phase in phases for p in only_in_head(stages, phase.train)]
    if not phases or stray or not all(named(stages, phase.train) for phase in phases):
        with pytest.raises(ValueError, match=r"trains nothing|nothing matches|at least one phase"):
            Plan(phases, bound)
        return
    names = list(stages)
    plan = Plan(phases, bound)
    timeline = [number for number, phase in enumerate(phases) for _ in range(phase.epochs)]
    assert plan.total_epochs == len(timeline)
    ever: set[str] = set()
    for epoch in range(len(timeline) + 2):
        number = timeline[min(epoch, len(timeline) - 1)]
        trained = named(stages, phases[number].train)
        ever |= trained.keys()
        assert (plan.index(epoch), plan.start(epoch)) == (number, timeline.index(number))
        assert plan.at(epoch) == phases[number]
        assert plan.in_last_phase(epoch) == (number == len(phases) - 1)
        assert plan.trained(epoch) == {f"{stage}.{path}" for stage, paths in trained.items() for path in paths}
        assert plan.frozen_prefix(epoch) == min(names.index(stage) for stage in trained)
        assert plan.never_trained(epoch) == min(names.index(stage) for stage in ever)
    assert plan.never_trained() == min(names.index(stage) for stage in ever)


@given(stages=st.lists(NAMES, min_size=1, max_size=6, unique=True), epochs=st.integers(1, 3), rounds=st.integers(1, 2))
def test_every_plan_of_any_network_trains_every_stage_or_the_head_alone(
    stages: list[str], epochs: int, rounds: int
) -> None:
    for phases in (
        full(stages, epochs),
        probe_then_full(stages, 1 + epochs, 1),
        gradual(stages, epochs),
        chain_thaw(stages, epochs, rounds),
    ):
        plan = plan_of(phases, stages)
        assert plan.never_trained() == 0
        assert set().union(*(trained_stages(plan, epoch) for epoch in range(plan.total_epochs))) == set(stages)
        assert trained_stages(plan, plan.total_epochs - 1) == set(stages)
    assert plan_of(head_only(stages, epochs), stages).never_trained() == len(stages) - 1
