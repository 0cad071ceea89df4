"""With a memory, the learner works out what acted, however rollouts are cut, held back and joined."""

import pytest
import torch
from gymnasium import spaces
from helpers import COUNTDOWN, fit
from lightning.pytorch import Callback
from torch import nn
from torch.optim import SGD

from a3c import ActorCritic, FullEpisode, MLPActorCritic, NStep, VTrace
from a3c.batch import BatchShape, empty_batch, join_columns
from a3c.envs.spec import EnvSpec
from a3c.rollouts.collector import Collector, CollectRules
from a3c.rollouts.delay_line import DelayLine
from a3c.rollouts.segments import SegmentJoiner
from a3c.rollouts.weights import SharedWeights

SPACES = spaces.Box(-1, 1, (2,)), spaces.Discrete(3)
LENGTHS = ((3, 1, 4), (5,), (2, 7))  # of the episodes of each environment


class Remembering(MLPActorCritic):
    """Begins its episodes with a state that is learned, and heeds what it remembers."""

    def __init__(self, kind="gru", size=6):
        super().__init__(*SPACES, hidden_sizes=(8,), activation="tanh", memory=kind, memory_size=size)
        generator = torch.Generator().manual_seed(0)
        for parameter in self.parameters():
            nn.init.normal_(parameter, 0, 0.6, generator)
        self.first = nn.Parameter(torch.linspace(-1, 1, self.state_shape[0]))

    def initial_state(self, columns):
        zeros = super().initial_state(columns)
        return zeros + self.first if hasattr(self, "first") else zeros

    def unroll(self, inputs, state, begins):
        return ActorCritic.unroll(self, inputs, state, begins)


def collecting(network, lengths=LENGTHS, seed=0, **rules):
    collector = Collector(
        EnvSpec(COUNTDOWN).make(len(lengths)), network, SharedWeights(network), seed=seed, rules=CollectRules(**rules)
    )
    for env, own in zip(collector.env.envs, lengths, strict=True):
        env.unwrapped.lengths = own
    return collector


def fragments(collector, length, count):
    """Gives fragments, each in memory of its own; observations are brought to the size of 1."""
    pack = collector._pack
    collector._pack = lambda observation: pack(observation) / 4
    for _ in range(count):
        columns = collector.env.num_envs
        shape = BatchShape(length, columns, (2,), torch.float32, state_shape=collector.network.state_shape)
        out = empty_batch(shape)
        yield out.first(collector.collect(out).length)


def recomputed(network, batch):
    with torch.no_grad():
        policy, values = network.judge_batch(batch)
    assert values.shape == batch.observations.shape[:2]
    return policy.log_prob(batch.actions)


def is_what_acted(network, batch, atol=1e-5):
    error = (recomputed(network, batch) - batch.behaviour_log_probs)[batch.mask].abs()
    return bool((error < atol).all())


def assert_is_what_acted(network, batches):
    """Says that log-probabilities are those of the policy that acted, and that it takes states and begins for it."""
    assert all(is_what_acted(network, batch) for batch in batches)
    blank = [batch._replace(states=torch.zeros_like(batch.states)) for batch in batches]
    assert not all(is_what_acted(network, batch, 1e-2) for batch in blank)


@pytest.mark.parametrize("kind", ["gru", "lstm"])
@pytest.mark.parametrize("length", [1, 2, 3, 5, 16])
def test_a_fragment_is_judged_as_it_was_acted_wherever_episodes_begin_and_end(length, kind):
    network = Remembering(kind)
    batches = list(fragments(collecting(network), length, 40 // length + 1))
    assert_is_what_acted(network, batches)
    masks = torch.cat([batch.mask for batch in batches])
    assert not masks.all()
    if length > 1:
        assert not all(batch.mask[0].all() for batch in batches)  # some begin with a reset that was left over
        without = [batch._replace(mask=torch.ones_like(batch.mask)) for batch in batches]  # no begins, that is
        assert not all(
            (recomputed(network, blind) - batch.behaviour_log_probs)[batch.mask].abs().max() < 1e-2
            for blind, batch in zip(without, batches, strict=True)
        )


@pytest.mark.parametrize("lengths", [((1,),), ((3, 1, 4),), ((2,), (2,))])
@pytest.mark.parametrize("length", [1, 2, 7])
def test_a_fragment_that_begins_after_all_resets_begins_with_fresh_states(length, lengths):
    network = Remembering()
    batches = list(fragments(collecting(network, lengths), length, 30 // length))
    assert all(batch.mask[0].all() for batch in batches)
    assert_is_what_acted(network, batches)
    for batch in batches:  # the second number of an observation is its step
        fresh = batch.observations[:-1, ..., 1][batch.mask] == 0
        first = network.first.detach().expand(int(fresh.sum()), -1)
        assert torch.equal(batch.states[batch.mask][fresh], first)


def test_a_new_episode_begins_with_the_first_state_of_the_weights_that_act():
    network = Remembering()
    learner = Remembering()
    collector = collecting(network, ((3,),))
    list(fragments(collector, 3, 1))
    with torch.no_grad():
        learner.first.fill_(0.25)
    collector.weights.publish(learner)
    (batch,) = fragments(collector, 3, 1)
    assert batch.states[0].unique().tolist() == [0.25]


@pytest.mark.parametrize("kind", ["gru", "lstm"])
@pytest.mark.parametrize("horizon", [None, 1, 2, 3])
@pytest.mark.parametrize("length", [1, 2, 5])
def test_joined_segments_are_judged_as_they_were_acted(length, horizon, kind):
    network, joiner = Remembering(kind), SegmentJoiner(horizon)
    for batch in fragments(collecting(network, end_with_episodes=True), length, 40 // length):
        joiner.add(batch)
    batches = []
    while len(joiner):
        batches.append(joiner.take(min(4, len(joiner))))
    assert not torch.cat([batch.mask.flatten() for batch in batches]).all() or horizon == 1  # some are padded
    assert_is_what_acted(network, batches)


def test_columns_that_are_joined_keep_their_states_whatever_their_lengths():
    network = Remembering()
    some = list(fragments(collecting(network), 5, 3))
    others = list(fragments(collecting(network, ((4, 2),), seed=1, end_with_episodes=True), 9, 3))
    batches = [join_columns(list(pair)) for pair in zip(some, others, strict=True)]
    assert {batch.columns for batch in batches} == {4}
    assert any(not batch.mask[-1, 3] for batch in batches)
    assert_is_what_acted(network, batches)


def test_a_batch_that_is_held_back_is_judged_by_the_weights_of_its_time_as_it_was_acted():
    network, line = Remembering(), DelayLine(2)
    stream = fragments(collecting(network), 5, 6)
    due = []
    for version, batch in enumerate(stream):
        line.add(version, batch)
        due.append(line.take(version))
        for field in batch:
            field.zero_()  # its memory is used again
    assert due[:2] == [None, None]
    assert_is_what_acted(network, due[2:])


def test_a_learned_first_state_has_gradient_from_the_episodes_that_begin_within_a_fragment():
    network = Remembering()
    begun = []
    for batch in fragments(collecting(network), 2, 8):
        policy, values = network.judge_batch(batch)
        own = policy.log_prob(batch.actions)[batch.mask].sum() + values[:-1][batch.mask].sum()
        (gradient,) = torch.autograd.grad(own, network.first, allow_unused=True, materialize_grads=True)
        begins = bool((batch.begins[:-1] & batch.mask.new_ones(1)).any())
        assert bool(gradient.any()) == begins
        begun.append(begins)
    assert {True, False} == set(begun)


def test_gradient_stops_at_the_begin_of_a_fragment_and_goes_through_all_of_it():
    network = Remembering()
    *_, batch = fragments(collecting(network, ((20,), (20,))), 5, 2)
    batch.states.requires_grad_()
    inputs = batch.observations.requires_grad_()
    _, values = network.judge_batch(batch)
    through, into = torch.autograd.grad(values[4].sum(), [inputs, batch.states])
    assert through.abs().sum((1, 2)).gt(0).tolist() == [True] * 5 + [False]
    assert (
        into.abs().sum((1, 2)).gt(0).tolist() == [True] + [False] * 4
    )  # of the first state alone, which is a constant
    assert not next(fragments(collecting(network), 5, 1)).states.requires_grad


# Whole fits


class Watch(Callback):
    """Keeps how far the policy is from the one that acted, by update or report, and what was masked."""

    def __init__(self):
        self.kl, self.clipped, self.masked = [], [], 0

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.masked += int((~batch.mask).sum()) if hasattr(batch, "mask") else 1

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if pl_module.window.sums.updates:
            means = pl_module.window.sums.take_means()  # taken away, so of this update alone
            self.kl.append(means["policy/kl_from_behaviour"])
            self.clipped.append(means["importance/clip_fraction"])


MEMORY = {"memory": "gru", "memory_size": 8, "orthogonal_init": False}
CASES = {
    "fragments": {"returns": NStep(8)},
    "one environment": {"returns": NStep(8), "envs_per_worker": 1},
    "segments": {"returns": NStep(5, end_at_episode=True), "envs_per_worker": 1},
    "several rollouts": {"returns": VTrace(8), "rollouts_per_update": 3},
    "an LSTM": {"returns": NStep(8), "network": {**MEMORY, "memory": "lstm"}},
    "held back for no time": {"returns": VTrace(8), "inject_lag": 0},
    "everything normalised": {
        "returns": NStep(8),
        "learning": {"normalise_observations": True, "popart": True, "normalise_advantages": True},
    },
}
WANDER = {"env": "scripted_envs:Wander-v0", "network": MEMORY, "max_env_steps": 800}


@pytest.mark.parametrize("case", CASES)
def test_in_sync_the_policy_of_every_update_is_the_one_that_acted(case):
    watch = Watch()
    model, _, _ = fit(callbacks=[watch], **{**WANDER, **CASES[case]})
    assert model.updates == len(watch.kl) > 5
    assert watch.masked > 0 or "envs_per_worker" in CASES[case]
    assert max(map(abs, watch.kl)) < 1e-6
    assert max(watch.clipped) == 0


class StandsStill(SGD):
    """Makes updates that change nothing, so that no policy is ever another than the one that acted."""

    def __init__(self, parameters):
        super().__init__(parameters, lr=0.0)


REUSED = {"passes": 3, "minibatches": 2, "recompute_targets": True}
STILL = {
    "whole episodes": {"returns": FullEpisode(), "fragment_steps": 4},
    "segments": {"returns": NStep(5, end_at_episode=True), "fragment_steps": 3},
    "held back": {"returns": NStep(8), "inject_lag": 3},
    "held back episodes": {"returns": FullEpisode(), "fragment_steps": 8, "inject_lag": 2, "rollouts_per_update": 2},
    "async": {"mode": "async", "workers": 2, "returns": NStep(8), "rollouts_per_update": 2},
    "async, episodes": {"mode": "async", "workers": 2, "returns": FullEpisode(), "fragment_steps": 4},
    "hogwild": {"mode": "hogwild", "workers": 2, "returns": NStep(8)},
    "hogwild, episodes": {"mode": "hogwild", "workers": 2, "returns": FullEpisode(), "fragment_steps": 4},
    "minibatches": {"returns": NStep(8), "learning": REUSED},
    "minibatches of episodes": {"returns": FullEpisode(), "fragment_steps": 4, "learning": REUSED},
    "hogwild, minibatches": {"mode": "hogwild", "workers": 2, "returns": NStep(8), "learning": REUSED},
}


@pytest.mark.parametrize("case", STILL)
def test_steps_are_judged_as_they_were_acted_in_every_mode_and_whatever_holds_them(case):
    watch = Watch()
    case = {**WANDER, **STILL[case]}
    learning = {"optimizer": StandsStill, **case.pop("learning", {})}
    model, _, _ = fit(callbacks=[watch], learning=learning, **case)
    assert model.updates > 5
    assert watch.masked > 0
    assert watch.kl
    assert max(map(abs, watch.kl)) < 1e-6
    assert max(watch.clipped) == 0
