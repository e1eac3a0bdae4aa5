import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from gossamer.workloads.search.ddpg import (
    Agent,
    Baseline,
    Published,
    Replay,
    Transitions,
    soft_update,
    truncated_normal,
)

SMALL = Published(hidden=2, warm_up=2)


def constant(module: nn.Module, **values: list) -> None:
    """Give each named parameter these values, and 0 to the others."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(torch.tensor(values.get(name.replace(".", "_"), 0.0)).broadcast_to(parameter.shape))


def transitions(states=((0.0,),), actions=((0.0,),), rewards=((0.0,),), following=((0.0,),), alive=((1.0,),)):
    return Transitions(*(np.array(each, np.float32) for each in (states, actions, rewards, following, alive)))


def test_the_numbers_are_those_of_the_public_code():
    numbers = Published()
    assert (numbers.hidden, numbers.actor_rate, numbers.critic_rate, numbers.tau) == (300, 1e-4, 1e-3, 0.01)
    assert (numbers.discount, numbers.batch, numbers.replay, numbers.warm_up) == (1.0, 64, 100, 100)
    assert (numbers.sigma, numbers.sigma_decay, numbers.baseline_rate) == (0.5, 0.95, 0.5)


def test_noise_is_constant_during_the_warm_up_and_then_decays_by_a_twentieth_an_episode():
    numbers = Published()
    assert numbers.sigma_of(0) == numbers.sigma_of(100) == 0.5
    assert numbers.sigma_of(101) == pytest.approx(0.475)
    assert numbers.sigma_of(102) == pytest.approx(0.45125)
    assert numbers.sigma_of(399) == pytest.approx(0.5 * 0.95**299)


def test_the_actor_is_two_hidden_layers_and_a_sigmoid():
    agent = Agent(1, 1, seed=0, numbers=SMALL)
    constant(agent.actor, fc1_weight=[[1.0], [-1.0]], fc2_weight=[[2.0, 0.0], [0.0, 2.0]], fc3_weight=[[1.0, 3.0]])
    # 0.5 -> (0.5, -0.5) -> relu (0.5, 0) -> (1, 0) -> 1; -0.5 -> (0, 0.5) -> (0, 1) -> 3
    assert agent.policy(np.array([0.5])) == pytest.approx(1 / (1 + math.exp(-1)))
    assert agent.policy(np.array([-0.5])) == pytest.approx(1 / (1 + math.exp(-3)))


def test_the_critic_adds_what_its_first_layers_make_of_state_and_action():
    agent = Agent(1, 1, seed=0, numbers=SMALL)
    constant(
        agent.critic,
        of_state_weight=[[1.0], [1.0]],
        of_action_weight=[[2.0], [-2.0]],
        fc2_weight=[[1.0, 1.0], [0.0, 1.0]],
        fc3_weight=[[1.0, 10.0]],
        fc3_bias=[0.25],
    )
    # state 1, action 0.25: (1.5, 0.5) -> (2, 0.5) -> 2 + 5 + 0.25; action 1: (3, -1) -> (3, 0) -> 3.25
    values = agent.critic(torch.tensor([[1.0], [1.0]]), torch.tensor([[0.25], [1.0]]))
    assert values.tolist() == [[7.25], [3.25]]


def test_a_value_is_reward_less_baseline_and_the_targets_value_of_what_follows():
    agent = Agent(1, 1, seed=0, numbers=SMALL)
    constant(agent.target_actor)  # the action is 0.5 everywhere
    constant(agent.target_critic, of_action_weight=[[2.0], [0.0]], fc2_weight=[[1.0, 0.0], [0.0, 0.0]],
             fc3_weight=[[3.0, 0.0]])  # fmt: skip  # 6 a, so 3 everywhere
    batch = transitions(((0.0,),) * 2, ((0.1,),) * 2, ((-0.5,), (-0.1,)), ((0.0,),) * 2, ((1.0,), (0.0,)))
    # the first mean reward, -0.3, is the baseline; nothing follows the last step
    assert agent.values_of(batch).numpy().ravel() == pytest.approx([-0.2 + 3, 0.2])
    # the second mean is the same, the baseline stays
    assert agent.values_of(batch).numpy().ravel() == pytest.approx([-0.2 + 3, 0.2])


def test_the_discount_weighs_what_follows():
    agent = Agent(1, 1, seed=0, numbers=Published(hidden=2, discount=0.5))
    constant(agent.target_actor)
    constant(agent.target_critic, fc3_bias=[4.0])
    assert agent.values_of(transitions()).item() == pytest.approx(2.0)


def test_the_baseline_starts_at_the_first_mean_and_goes_half_the_way_to_each_next_one():
    baseline = Baseline(0.5)
    assert [baseline.follow(mean) for mean in (-0.8, -0.4, -0.2)] == pytest.approx([-0.8, -0.6, -0.4])


def test_soft_update_goes_a_hundredth_of_the_way():
    target, source = nn.Linear(1, 1), nn.Linear(1, 1)
    constant(target, weight=[[1.0]], bias=[0.0])
    constant(source, weight=[[3.0]], bias=[-5.0])
    soft_update(target, source, 0.01)
    assert target.weight.item() == pytest.approx(1.02)
    assert target.bias.item() == pytest.approx(-0.05)
    assert (source.weight.item(), source.bias.item()) == (3.0, -5.0)


def test_one_step_of_learning_is_one_of_adam_against_the_critics_error_and_up_its_slope():
    agent = Agent(1, 1, seed=0, numbers=SMALL)
    constant(agent.critic, of_action_weight=[[1.0], [0.0]], fc2_weight=[[1.0, 0.0], [0.0, 0.0]],
             fc3_weight=[[1.0, 0.0]])  # fmt: skip  # the value is the action
    constant(agent.actor)
    agent.step(transitions(actions=((0.5,),), rewards=((0.0,),), alive=((0.0,),)))
    # Adam's first step is its rate, against the sign of the slope: the value was 0.5, and 0 was wanted.
    assert agent.critic.fc3.bias.item() == pytest.approx(-1e-3, rel=1e-4)
    assert agent.critic.fc3.weight[0, 0].item() == pytest.approx(1 - 1e-3, rel=1e-6)
    # The value grows with the action, so the actor's action grows.
    assert agent.actor.fc3.bias.item() == pytest.approx(1e-4, rel=1e-3)


def test_the_targets_follow_a_step_at_tau():
    agent = Agent(2, 1, seed=3, numbers=SMALL)
    before = [p.detach().clone() for p in agent.target_critic.parameters()]
    agent.step(transitions(states=((0.3, 0.2),), actions=((0.5,),), rewards=((1.0,),), following=((0.3, 0.9),)))
    for old, slow, fast in zip(before, agent.target_critic.parameters(), agent.critic.parameters(), strict=True):
        np.testing.assert_allclose(slow.detach(), 0.99 * old + 0.01 * fast.detach(), atol=1e-7)


def test_targets_start_as_copies():
    agent = Agent(3, 1, seed=1, numbers=SMALL)
    for slow, fast in ((agent.target_actor, agent.actor), (agent.target_critic, agent.critic)):
        assert all(torch.equal(a, b) for a, b in zip(slow.parameters(), fast.parameters(), strict=True))
        assert all(a is not b for a, b in zip(slow.parameters(), fast.parameters(), strict=True))


def test_a_full_memory_forgets_the_oldest_transition():
    replay = Replay(3, 1)
    for i in range(5):
        replay.append(np.array([i]), i / 10, -i, np.array([i + 1]), last=i == 4)
    assert len(replay) == 3
    batch = replay.sample(64, np.random.default_rng(0))
    order = np.argsort(batch.states.ravel())
    assert batch.states[order].ravel().tolist() == [2, 3, 4]
    assert batch.actions[order].ravel() == pytest.approx([0.2, 0.3, 0.4])
    assert batch.rewards[order].ravel().tolist() == [-2, -3, -4]
    assert batch.next_states[order].ravel().tolist() == [3, 4, 5]
    assert batch.alive[order].ravel().tolist() == [1, 1, 0]


def test_a_sample_repeats_no_transition():
    replay = Replay(100, 1)
    for i in range(100):
        replay.append(np.array([i]), 0.5, 0, np.array([i]), last=False)
    batch = replay.sample(64, np.random.default_rng(1))
    assert len(np.unique(batch.states)) == 64


def test_half_of_a_truncated_normal_about_one_half_lies_below_it():
    assert truncated_normal(0.5, 0.5, 0.5) == pytest.approx(0.5)


def test_a_truncated_normal_is_the_normal_cut_to_the_unit_interval():
    # Cut to its upper half: of N(0, 0.5) the share between 0 and 0.5 (one sigma) is 0.341345 of 0.477250 (two sigmas).
    assert truncated_normal(0.0, 0.5, 0.341345 / 0.477250) == pytest.approx(0.5, abs=1e-5)
    assert truncated_normal(1.0, 0.5, 1 - 0.341345 / 0.477250) == pytest.approx(0.5, abs=1e-5)


@given(mean=st.floats(0, 1), sigma=st.floats(0, 10), share=st.floats(0, 1, exclude_min=True, exclude_max=True))
def test_a_truncated_normal_stays_in_the_unit_interval_and_agrees_with_scipy(mean, sigma, share):
    from scipy.stats import truncnorm

    found = truncated_normal(mean, sigma, share)
    assert 0 <= found <= 1
    if sigma > 1e-3 and 1e-9 < share < 1 - 1e-9:
        wanted = truncnorm.ppf(share, -mean / sigma, (1 - mean) / sigma, loc=mean, scale=sigma)
        assert found == pytest.approx(wanted, abs=1e-6)


def test_during_the_warm_up_actions_are_uniform_and_then_they_are_near_the_actors():
    agent = Agent(1, 1, seed=0, numbers=Published(hidden=2, warm_up=1, sigma_decay=0.5))
    state = np.array([0.5])
    drawn = np.array([agent.act(state, 0) for _ in range(2000)])
    assert np.histogram(drawn, 4, (0, 1))[0] == pytest.approx(500, abs=80)
    late = np.array([agent.act(state, 12) for _ in range(2000)])  # sigma 0.5 * 0.5^11 = 0.000244
    assert late == pytest.approx(agent.policy(state), abs=0.0013)
    assert late.std() == pytest.approx(0.5**12, rel=0.1)


def test_agents_of_one_seed_act_and_learn_the_same_whatever_was_drawn_elsewhere():
    def story(seed):
        agent = Agent(1, 1, seed)
        found = []
        for episode in range(98, 104):
            action = agent.act(np.array([0.5]), episode)
            agent.replay.append(np.array([0.5]), action, -abs(action - 0.3), np.array([0.5]), last=True)
            agent.learn()
            found.append(action)
        return found

    first = story(7)
    torch.rand(3)
    assert story(7) == first
    assert story(8) != first


def test_the_agent_finds_the_best_action_of_a_bandit():
    agent = Agent(1, 1, seed=0)
    state = np.array([0.0])
    for episode in range(300):
        action = agent.act(state, episode)
        agent.replay.append(state, action, -((action - 0.8) ** 2), state, last=True)
        if episode >= agent.numbers.warm_up:
            agent.learn()
    assert agent.policy(state) == pytest.approx(0.8, abs=0.1)


def test_an_agent_leaves_torchs_generator_alone():
    before = torch.random.get_rng_state()
    Agent(2, 2, seed=5)
    assert torch.equal(torch.random.get_rng_state(), before)
