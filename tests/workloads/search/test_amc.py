import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.workloads.errors import InputError
from gossamer.workloads.search import Trained
from gossamer.workloads.search.amc import FLOORS, REWARDS, Judge, Road, Walk, run_amc
from gossamer.workloads.search.channels import ChannelSpace
from gossamer.workloads.search.ddpg import Replay
from gossamer.workloads.search.patterns import NmSpace
from gossamer.workloads.search.sparsities import SparsitySpace
from gossamer.workloads.search.table import Table
from gossamer.workloads.search.uniform import uniform
from gossamer.workloads.training import load_recipe

FEW = {"episodes": 8, "warm_up": 5, "epochs": 0}


@pytest.fixture(scope="module")
def trained():
    """The MLP 64-100-100-10 on digits, trained for a moment."""
    return Trained.of(load_recipe("mlp-digits-imp", epochs=4, samples=4))


@pytest.fixture(scope="module")
def spaces(trained):
    return {
        "sparsity": SparsitySpace(trained),
        "channels": ChannelSpace(trained),
        "nm": NmSpace(trained, m=8, ns=(1, 2, 4)),
    }


def weights(trace):
    """Weights that are left: adds up over layers and depends on nothing else."""
    return float(sum(layer.nonzeros for layer in trace.layers))


def met(trace):
    """Weights that meet an activation which is not 0: what a machine that skips both kinds of zeros multiplies."""
    return float(sum(np.count_nonzero(layer.inputs, axis=0) @ (layer.kept != 0).sum(axis=0) for layer in trace.layers))


def squared(trace):
    """A cost that does not add up over layers, as energy times delay does not."""
    return weights(trace) ** 2


def drawn(actions):
    return lambda index, state: actions[index]


def test_a_state_holds_the_ten_features_of_the_public_code_and_the_layers_cost(spaces):
    space = spaces["sparsity"]
    road = Road(space, Table(space, weights), 0.02, math.inf)
    # layers 64-100, 100-100, 100-10: 6400, 10000 and 1000 weights, and so much cost
    first = road.state(())
    assert first == pytest.approx([0, 0, 0, 1, 0, 0, 0.6, 0.6, 0, 11000 / 17400, 1], abs=1e-6)
    half = space.layers[0].choices[-2]
    kept = round(6400 * half)
    second = road.state((half,))
    assert second == pytest.approx([0.5, 0, 1, 1, 0, 0, 1, 1, (6400 - kept) / 17400, 1000 / 17400, half], abs=1e-6)
    assert road.features == 11


def test_what_a_channel_saves_in_the_next_layer_counts_as_saved(spaces):
    space = spaces["channels"]
    road = Road(space, Table(space, weights), 0.2, math.inf)
    # half of the first layer's 100 channels: 3200 of its own weights, and 5000 of those that read them
    assert road.state((0.5,))[8] == pytest.approx((3200 + 5000) / 17400, abs=1e-6)


def test_a_layers_type_kernel_and_stride_are_features():
    space = ChannelSpace(Trained.of(load_recipe("convnet-digits-dense", epochs=1, samples=2)))
    states = [Road(space, Table(space, weights), 0.2, math.inf).state((1.0,) * i) for i in range(len(space.layers))]
    assert [layer.type for layer in space.layers] == ["conv2d"] * 3
    assert [float(state[4]) for state in states] == [0, 1, 1]  # strides 1, 2 and 2
    assert [float(state[1]) for state in states] == [0, 0, 0]


@pytest.mark.parametrize("kind", ["sparsity", "channels", "nm"])
@given(actions=st.lists(st.floats(0, 1), min_size=3, max_size=3), share=st.floats(0.3, 1))
@settings(max_examples=25)
def test_no_walk_passes_the_wall_whatever_the_actions(spaces, kind, actions, share):
    space = spaces[kind]
    table = _tables(space, weights)
    budget = share * table.network([1.0] * len(space.layers))
    walked = Road(space, table, FLOORS[kind], budget).walk(drawn(actions), budget)
    assert weights(space.apply(walked.choices).trace()) <= budget * (1 + 1e-9)


@given(actions=st.lists(st.floats(0, 1), min_size=3, max_size=3))
@settings(max_examples=25)
def test_the_wall_takes_no_more_than_it_must(spaces, actions):
    space = spaces["sparsity"]
    table = _tables(space, weights)
    budget = 0.4 * table.network([1.0] * 3)
    road = Road(space, table, 0.02, budget)
    taken = road.walk(drawn(actions), budget).choices
    for index, (choice, action) in enumerate(zip(taken, actions, strict=True)):
        legal = road.legal[index]
        asked = legal[round(action * (len(legal) - 1))]
        assert choice <= asked
        if choice < asked:
            larger = legal[legal.index(choice) + 1]
            assert table.network([*taken[:index], larger, *road.leanest[index + 1 :]]) > budget


def test_actions_span_the_choices_from_the_floor_to_what_the_budget_can_bear(spaces):
    space = spaces["sparsity"]
    table = _tables(space, weights)
    budget = 0.1 * table.network([1.0] * 3)
    road = Road(space, table, 0.02, budget)
    for index, legal in enumerate(road.legal):
        assert legal[0] == min(choice for choice in space.layers[index].choices if choice >= 0.02)
        fits = [*road.leanest]
        fits[index] = legal[-1]
        assert table.network(fits) <= budget
        assert road.wall(0.0, road.leanest[:index], budget) == legal[0]
        assert road.wall(1.0, road.leanest[:index], budget) == legal[-1]


def test_without_a_budget_an_action_is_the_share_of_channels(spaces):
    space = spaces["channels"]
    road = Road(space, _tables(space, weights), 0.0, math.inf)
    assert road.wall(0.495, (), math.inf) == pytest.approx(0.5)  # of 0.01 to 1
    assert road.wall(1.0, (), math.inf) == 1.0


def test_the_room_left_for_layers_behind_is_that_of_their_cheapest_choice_not_the_smallest(spaces):
    space = spaces["nm"]

    def slower_at_an_eighth(trace):
        return sum(3.0 if 0 < layer.nonzeros / layer.weight.size < 0.2 else layer.nonzeros / layer.weight.size
                   for layer in trace.layers)  # fmt: skip

    road = Road(space, Table(space, slower_at_an_eighth), 0.0, 0.8)
    assert road.leanest == (0.25, 0.25, 0.25)
    walked = road.walk(drawn([1.0, 0.0, 1.0]), 0.8)
    assert slower_at_an_eighth(space.apply(walked.choices).trace()) <= 0.8


@pytest.mark.parametrize("cost", [met, squared])
def test_costs_that_do_not_add_up_are_kept_within_the_target_by_moving_the_wall(spaces, cost):
    space = spaces["sparsity"]
    judge = Judge(space, _tables(space, cost), 0.3, 0.02)
    for actions in ([1, 1, 1], [0.95, 1, 0.5], [0.8, 0.97, 1]):
        walked = judge.walk(drawn(actions))
        found = cost(space.apply(walked.choices).trace())
        assert found == judge.cost(walked.choices)
        assert 0.9 * judge.target < found <= judge.target * (1 + 1e-9)
    assert judge.drift != pytest.approx(1, abs=1e-3)


def test_rewards_are_those_of_the_paper():
    assert REWARDS["error"](0.25, 1000.0) == -0.25
    assert REWARDS["error-log-cost"](0.25, math.e**2) == pytest.approx(-0.5)
    assert REWARDS["error-log-cost"](0.25, 100) > REWARDS["error-log-cost"](0.25, 1000)


def test_a_network_over_the_target_is_rewarded_as_one_that_is_never_right(spaces):
    space = spaces["nm"]
    judge = Judge(space, _tables(space, weights), 0.5, 0.0)
    dense = Walk(np.zeros((3, 11)), (1.0,) * 3, (1.0,) * 3)
    for name, worst in (("error", -1.0), ("error-log-cost", -math.log(17400))):
        episode, _ = judge.episode(dense, REWARDS[name])
        assert (episode.within, episode.cost) == (False, 17400)
        assert episode.reward == pytest.approx(worst)
        assert episode.accuracy > 0.5


def test_every_step_of_an_episode_is_remembered_with_the_reward_of_its_end(spaces, monkeypatch):
    seen = []
    append = Replay.append

    def spy(self, state, action, reward, next_state, last):
        seen.append((state.copy(), action, reward, next_state.copy(), last))
        append(self, state, action, reward, next_state, last)

    monkeypatch.setattr(Replay, "append", spy)
    found = run_amc(spaces["sparsity"], weights, 0.2, table=_tables(spaces["sparsity"], weights), **FEW)
    assert len(seen) == 8 * 3
    for number, episode in enumerate(found.episodes):
        steps = seen[3 * number : 3 * number + 3]
        assert [reward for _, _, reward, _, _ in steps] == [episode.reward] * 3
        assert [last for *_, last in steps] == [False, False, True]
        for (_, _, _, after, _), (state, *_) in pairwise(steps):
            assert np.array_equal(after, state)
        assert episode.reward == pytest.approx(episode.accuracy - 1)


@pytest.mark.parametrize("kind", ["sparsity", "channels", "nm"])
def test_a_search_stays_within_its_target_and_keeps_the_best_episode(spaces, kind):
    told = []
    found = run_amc(
        spaces[kind],
        weights,
        0.3,
        table=_tables(spaces[kind], weights),
        **FEW,
        progress=lambda share, what: told.append(share),
    )
    assert found.method == "amc"
    assert found.cost == weights(found.candidate.trace()) <= found.target == 0.3 * found.dense_cost
    assert found.reached
    best = max(found.episodes, key=lambda episode: episode.reward)
    assert found.before_tuning == best.accuracy == found.candidate.accuracy()
    assert [step.accuracy for step in found.steps] == sorted(step.accuracy for step in found.steps)
    assert found.steps[-1].choices == found.candidate.choices == found.episodes[found.steps[-1].step - 1].choices
    assert told == pytest.approx([(i + 1) / 8 for i in range(8)])


def test_one_seed_finds_one_network_and_another_walks_another_way(spaces):
    space = spaces["sparsity"]
    tables = (Table(space, weights), _tables(space, weights), _tables(space, weights))  # one of them empty at first
    runs = [
        run_amc(space, weights, 0.15, seed=seed, table=table, **FEW)
        for seed, table in zip((3, 3, 4), tables, strict=True)
    ]
    assert runs[0].episodes == runs[1].episodes
    assert runs[0].candidate.choices == runs[1].candidate.choices
    assert runs[0].episodes != runs[2].episodes


def test_the_trained_network_is_left_as_it_was(trained, spaces):
    before = {name: value.copy() for name, value in trained.weights.items()}
    run_amc(spaces["channels"], weights, 0.5, table=_tables(spaces["channels"], weights), **FEW | {"epochs": 1})
    assert all(np.array_equal(value, trained.weights[name]) for name, value in before.items())


def test_fine_tuning_that_makes_a_network_dearer_is_done_on_a_smaller_one(spaces):
    space = spaces["sparsity"]
    found = run_amc(space, met, 0.25, table=_tables(space, met), **FEW | {"epochs": 2})
    assert found.candidate.epochs == 2
    assert met(found.candidate.trace()) == found.cost <= found.target * (1 + 1e-9)
    untuned = found.steps[-1].choices
    assert met(space.apply(untuned).fine_tune(2).trace()) <= found.target or found.candidate.choices != untuned
    assert found.candidate.accuracy() > found.before_tuning


def test_the_search_can_be_rewarded_for_cost_too(spaces):
    space = spaces["sparsity"]
    found = run_amc(space, weights, reward="error-log-cost", table=_tables(space, weights), **FEW)
    for episode in found.episodes:
        assert episode.reward == pytest.approx(-(1 - episode.accuracy) * math.log(episode.cost))
    assert found.target == found.dense_cost
    assert found.steps[-1].choices == max(found.episodes, key=lambda episode: episode.reward).choices


def test_amc_keeps_more_accuracy_than_uniform_pruning_at_the_same_cost(spaces):
    space = spaces["sparsity"]
    found = run_amc(space, weights, 0.08, episodes=50, warm_up=40, epochs=0, table=_tables(space, weights))
    plain = uniform(space, weights, found.target)
    assert plain.cost > 0.99 * found.target
    assert found.cost <= found.target
    assert found.candidate.accuracy() > plain.candidate.accuracy() + 0.03


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target": 0.0}, "target must be a share of the dense network's cost, above 0 and at most 1, not 0.0"),
        ({"target": 1.5}, "target must be a share of the dense network's cost, above 0 and at most 1, not 1.5"),
        ({"episodes": 5, "warm_up": 5}, "episodes must be more than the 5 random ones, not 5"),
        ({"reward": "speed"}, "reward must be one of error, error-log-cost, not 'speed'"),
        ({"floor": 2.0}, "floor must be a share between 0 and 1, not 2.0"),
        ({"epochs": -1}, "epochs must be at least 0, not -1"),
        (
            {"target": 0.1, "floor": 0.5},
            "target must be at least 0.5136, the share of its cost that the leanest network has, not 0.1; "
            "raise it or lower the floor",
        ),
    ],
)
def test_what_cannot_be_searched_is_refused(spaces, changes, message):
    with pytest.raises(InputError) as error:
        run_amc(spaces["sparsity"], weights, **{"target": 0.5} | FEW | changes)
    assert str(error.value) == message


def test_the_log_reward_refuses_costs_of_which_the_log_is_negative(spaces):
    with pytest.raises(InputError) as error:
        run_amc(spaces["nm"], lambda trace: 1e-6 * weights(trace), 0.5, reward="error-log-cost", **FEW)
    assert str(error.value).startswith("reward error-log-cost needs costs above 1, such as cycles, not 0.00")


def test_a_network_that_costs_nothing_is_refused(spaces):
    with pytest.raises(InputError) as error:
        run_amc(spaces["nm"], lambda trace: 0.0, 0.5, **FEW)
    assert str(error.value) == "the cost of the dense network must be above 0, and is 0; choose another cost"


def _tables(space, cost, made={}):  # noqa: B006  (filled once for all tests)
    return made.setdefault((id(space), cost), Table(space, cost))
