"""The action distributions against torch's, and which action space has which."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from gymnasium import spaces
from scipy import stats
from torch.distributions import AffineTransform, Independent, Normal, TanhTransform, TransformedDistribution

from a3c.envs.layouts import ACTIONS, BoxLayout, action_layout
from a3c.networks.distributions import (
    FAMILIES,
    ActionFamily,
    Bernoulli,
    BernoulliFamily,
    Categorical,
    CategoricalFamily,
    Composite,
    DictFamily,
    Distribution,
    GaussianFamily,
    MultiCategorical,
    MultiCategoricalFamily,
    TanhGaussianFamily,
    TupleFamily,
    family_for,
)
from a3c.networks.distributions.gaussian import LOG_STD_RANGE, log_tanh_slope

INF = math.inf
MULTI_DISCRETE = {
    "equal": spaces.MultiDiscrete([3, 3, 3, 3]),
    "ragged": spaces.MultiDiscrete([2, 5, 1]),
    "shifted": spaces.MultiDiscrete([[2, 3], [4, 5]], start=[[1, -1], [0, -3]]),
    "equal 2-D of int32": spaces.MultiDiscrete([[2, 2], [2, 2]], np.int32, start=[[5, 5], [5, 6]]),
    "one number": spaces.MultiDiscrete(np.array(4)),
}
MULTI_BINARY = {"3": spaces.MultiBinary(3), "2 by 3": spaces.MultiBinary((2, 3))}
BOXES = {
    "one": spaces.Box(-1, 1, (1,)),
    "number": spaces.Box(-3, 1, (), np.float64),
    "2 by 3": spaces.Box(np.float32([[-1, 0, 2], [-5, 1e-3, -1]]), np.float32([[1, 0.1, 8], [5, 1, 1e3]])),
    "half open": spaces.Box(np.array([-1, -INF, 0.5, -INF]), np.array([3, 2, INF, INF]), dtype=np.float64),
    "half precision": spaces.Box(-0.1, 0.3, (4,), np.float16),
}
RECORDS = {
    "dict": spaces.Dict({"move": spaces.Discrete(3, start=2), "buttons": spaces.MultiBinary((2, 2))}),
    "tuple": spaces.Tuple((BOXES["half open"], spaces.MultiDiscrete([2, 4], start=[1, 1]))),
    "nested": spaces.Dict(
        {
            "b": spaces.Tuple((spaces.Discrete(4), BOXES["2 by 3"], spaces.Dict(x=BOXES["number"]))),
            "a": spaces.MultiBinary(5),
            "c": MULTI_DISCRETE["shifted"],
        }
    ),
}
ALL = {
    f"{type(space).__name__} {name}": space
    for group in ({"": spaces.Discrete(4, start=-2)}, MULTI_DISCRETE, MULTI_BINARY, BOXES, RECORDS)
    for name, space in group.items()
}
LEAD = (6, 4)


def named(group):
    return pytest.mark.parametrize("space", group.values(), ids=group)


each_family = pytest.mark.parametrize(
    ("space", "squash"),
    [
        pytest.param(space, squash, id=f"{name}{' squashed' * squash}")
        for name, space in ALL.items()
        for squash in ([False, True] if "Box" in str(space) else [False])
    ],
)
squash_or_clip = pytest.mark.parametrize("squash", [False, True], ids=["clip", "squash"])


def seeded(seed=1):
    return torch.Generator().manual_seed(seed)


def parameters_of(family, seed=1, lead=LEAD, dtype=torch.float64):
    return torch.randn(*lead, family.parameter_count, generator=seeded(seed), dtype=dtype)


def drawn(family, distribution, lead=LEAD, seed=3):
    return distribution.sample(family.noise(lead, seeded(seed)))


def a_mask(family, lead=LEAD):
    """Forbids about half of all choices, and everything in some groups."""
    return torch.rand(*lead, family.mask_size, generator=seeded(5)) < 0.5


def column(values, place):
    """One environment's action among those that `for_env` gives."""
    if isinstance(values, dict):
        return {key: column(value, place) for key, value in values.items()}
    if isinstance(values, tuple):
        return tuple(column(value, place) for value in values)
    return np.asarray(values[place])


# What holds of every family


@each_family
def test_actions_are_as_memory_has_them_and_as_the_environment_takes_them(space, squash):
    family, layout = family_for(space, squash), action_layout(space)
    distribution = family(parameters_of(family, dtype=torch.float32) * 3)
    for actions in (drawn(family, distribution), distribution.mode()):
        assert actions.shape == (*LEAD, *layout.shape)
        assert torch.can_cast(actions.dtype, layout.torch_dtype)
        assert distribution.log_prob(actions).shape == LEAD
        for row in actions:
            given = family.for_env(row.numpy())
            for place in range(LEAD[1]):
                assert space.contains(column(given, place)), column(given, place)
    assert distribution.entropy().shape == distribution.kl(distribution).shape == LEAD


@each_family
def test_noise_comes_from_the_generator_alone_and_begins_with_the_shape(space, squash):
    family = family_for(space, squash)
    first, second, other = (family.noise((8, 2), seeded(seed)) for seed in (7, 7, 8))
    assert first.shape[:2] == (8, 2)
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


@each_family
def test_a_fragment_is_what_its_steps_are(space, squash):
    family = family_for(space, squash)
    parameters, noise = parameters_of(family, dtype=torch.float32), family.noise(LEAD, seeded())
    whole = family(parameters).sample(noise)
    for step in range(LEAD[0]):
        assert torch.equal(family(parameters[step]).sample(noise[step]), whole[step])
        torch.testing.assert_close(
            family(parameters[step]).log_prob(whole[step]), family(parameters).log_prob(whole)[step]
        )


@each_family
def test_divergence_is_none_from_itself_and_the_mean_log_ratio_from_another(space, squash):
    family, draws = family_for(space, squash), 20_000
    one, other = parameters_of(family, 1, ()) * 0.5, parameters_of(family, 2, ()) * 0.5
    assert family(one).kl(family(one)).item() == pytest.approx(0, abs=1e-12)
    ours, theirs = (family(parameters.expand(draws, -1)) for parameters in (one, other))
    actions = drawn(family, ours, (draws,))
    ratios = ours.log_prob(actions) - theirs.log_prob(actions)
    error = ratios.std().item() / math.sqrt(draws)
    assert family(one).kl(family(other)).item() == pytest.approx(ratios.mean().item(), abs=4 * error + 1e-9)


@each_family
def test_entropy_is_the_mean_of_minus_log_prob(space, squash):
    family, draws = family_for(space, squash), 20_000
    distribution = family(parameters_of(family, 1, ()).expand(draws, -1))
    surprise = -distribution.log_prob(drawn(family, distribution, (draws,)))
    error = surprise.std().item() / math.sqrt(draws)
    assert distribution.entropy()[0].item() == pytest.approx(surprise.mean().item(), abs=4 * error + 1e-4)


@pytest.mark.parametrize("size", [100.0, 1e4])
@each_family
def test_extreme_parameters_give_finite_numbers_and_gradients(space, squash, size):
    family = family_for(space, squash)
    parameters = (parameters_of(family, dtype=torch.float32).sign() * size).requires_grad_()
    distribution = family(parameters)
    for actions in (drawn(family, distribution), distribution.mode()):
        log_prob, entropy = distribution.log_prob(actions.detach()), distribution.entropy()
        divergence = distribution.kl(family(parameters * 0.5))
        for numbers in (log_prob, entropy, divergence):
            assert numbers.isfinite().all()
        (gradient,) = torch.autograd.grad((log_prob + entropy + divergence).sum(), parameters, retain_graph=True)
        assert gradient.isfinite().all()


MASKED = {name: space for name, space in ALL.items() if family_for(space).mask_size is not None}


@named(MASKED)
def test_masked_choices_are_never_drawn_and_have_no_gradient(space):
    family, draws = family_for(space), 10_000
    mask = a_mask(family, ())
    parameters = parameters_of(family, lead=(), dtype=torch.float32).requires_grad_()
    distribution = family(parameters.expand(draws, -1), mask.expand(draws, -1))
    actions = drawn(family, distribution, (draws,)).detach()
    log_prob = distribution.log_prob(actions)
    assert log_prob.isfinite().all()
    other = family(parameters.expand(draws, -1) * 0.3, mask.expand(draws, -1))
    for numbers in (log_prob, distribution.entropy(), distribution.kl(other)):
        assert numbers.isfinite().all()
        (gradient,) = torch.autograd.grad(numbers.sum(), parameters, retain_graph=True)
        assert gradient.isfinite().all()
        for forbidden in forbidden_places(family, mask):
            assert gradient[forbidden].item() == 0
    # The same noise draws the same action without the mask, or one that the mask makes impossible.
    free = drawn(family, family(parameters.expand(draws, -1)), (draws,)).detach()
    changed = (free != actions).reshape(draws, -1).any(1)
    assert changed.any()
    assert torch.equal(distribution.log_prob(free) == -INF, changed)


def forbidden_places(family, mask):
    """Places among the parameters that a mask forbids: in no group of which it forbids everything."""
    if isinstance(family, DictFamily | TupleFamily):
        first = allowed = 0
        for part in family.parts.values():
            if size := part.mask_size or 0:
                own = forbidden_places(part, mask[allowed : allowed + size])
                yield from (first + place for place in own)
            first, allowed = first + part.parameter_count, allowed + size
        return
    sizes = family.space.nvec.ravel() if isinstance(family.space, spaces.MultiDiscrete) else [family.space.n]
    first = 0
    for size in sizes:
        if mask[first : first + size].any():
            yield from (first + place for place in range(size) if not mask[first + place])
        first += size


@named(MASKED)
def test_a_mask_that_allows_nothing_changes_nothing_and_one_that_allows_all_as_little(space):
    family = family_for(space)
    parameters = parameters_of(family)
    plain = family(parameters)
    actions = drawn(family, plain)
    for allowed in (False, True):
        masked = family(parameters, torch.full((*LEAD, family.mask_size), allowed))
        assert torch.equal(drawn(family, masked), actions)
        torch.testing.assert_close(masked.log_prob(actions), plain.log_prob(actions))
        torch.testing.assert_close(masked.entropy(), plain.entropy())
        torch.testing.assert_close(masked.kl(plain), torch.zeros(LEAD, dtype=torch.float64), atol=1e-12, rtol=0)


# One choice


def test_gumbel_max_samples_are_distributed_as_the_softmax():
    logits = torch.tensor([2.0, 0.0, -1.0, 1.0, 0.5])
    draws = 50_000
    noise = CategoricalFamily(spaces.Discrete(5)).noise((draws,), seeded())
    samples = Categorical(logits.expand(draws, 5)).sample(noise)
    observed = torch.bincount(samples, minlength=5).double()
    expected = draws * logits.double().softmax(0)
    chi_square = ((observed - expected) ** 2 / expected).sum().item()
    assert chi_square < 18.47  # its 99.9 % quantile with 4 degrees of freedom


def test_noise_is_gumbel_distributed():
    noise = CategoricalFamily(spaces.Discrete(2)).noise((100_000,), seeded()).double()
    assert noise.mean().item() == pytest.approx(0.5772, abs=0.02)  # Euler's γ
    assert noise.var().item() == pytest.approx(math.pi**2 / 6, abs=0.05)


def test_an_action_of_no_probability_is_never_sampled():
    logits = torch.tensor([0.0, -INF, 0.0]).expand(1000, 3)
    samples = Categorical(logits).sample(CategoricalFamily(spaces.Discrete(3)).noise((1000,), seeded()))
    assert sorted(set(samples.tolist())) == [0, 2]


def test_log_probabilities_entropy_and_divergence_are_those_of_torch():
    logits, others = (torch.randn(6, 3, 5, generator=seeded(seed)) * 4 for seed in (1, 2))
    actions = torch.randint(5, (6, 3), generator=seeded(3))
    ours, torchs = Categorical(logits), torch.distributions.Categorical(logits=logits)
    torch.testing.assert_close(ours.log_prob(actions), torchs.log_prob(actions))
    torch.testing.assert_close(ours.entropy(), torchs.entropy())
    torch.testing.assert_close(ours.log_probabilities.exp(), torchs.probs)
    expected = torch.distributions.kl_divergence(torchs, torch.distributions.Categorical(logits=others))
    torch.testing.assert_close(ours.kl(Categorical(others)), expected)


def test_a_mask_leaves_the_softmax_of_what_it_allows():
    masked = Categorical(torch.tensor([1.0, 5.0, 2.0]), torch.tensor([True, False, True]))
    allowed = torch.distributions.Categorical(logits=torch.tensor([1.0, 2.0]))
    assert masked.log_probabilities[[0, 2]].tolist() == pytest.approx(allowed.logits.tolist())
    assert masked.log_prob(torch.tensor(1)).item() == -INF
    assert masked.entropy().item() == pytest.approx(allowed.entropy().item())
    assert masked.mode().item() == 2


def test_entropy_of_even_odds_is_the_logarithm_of_their_number():
    assert Categorical(torch.full((5,), 3.0)).entropy().item() == pytest.approx(math.log(5))


def test_extreme_logits_leave_no_entropy():
    distribution = Categorical(torch.tensor([[1000.0, -1000.0]]))
    assert distribution.log_prob(torch.tensor([0])).item() == 0
    assert distribution.entropy().item() == 0


def test_the_mode_is_the_most_probable_action():
    assert Categorical(torch.tensor([[0.0, 3.0, 1.0], [5.0, 3.0, 1.0]])).mode().tolist() == [1, 0]


def test_the_environment_counts_from_the_start_of_its_space():
    assert CategoricalFamily(spaces.Discrete(3, start=-1)).for_env(np.array([0, 1, 2])).tolist() == [-1, 0, 1]


# Several choices


def groups_of(space, parameters):
    """torch's distributions of the single numbers of an action, in order."""
    for logits in parameters.split(space.nvec.ravel().tolist(), -1):
        yield torch.distributions.Categorical(logits=logits)


@named(MULTI_DISCRETE)
def test_several_choices_are_those_of_torch_one_by_one(space):
    family = MultiCategoricalFamily(space)
    assert family.parameter_count == family.mask_size == space.nvec.sum()
    parameters, others = (parameters_of(family, seed) * 2 for seed in (1, 2))
    ours, theirs = family(parameters), family(others)
    actions = drawn(family, ours)
    numbers = actions.reshape(*LEAD, -1).unbind(-1)
    torchs, other = list(groups_of(space, parameters)), list(groups_of(space, others))
    log_prob = sum(one.log_prob(number) for one, number in zip(torchs, numbers, strict=True))
    torch.testing.assert_close(ours.log_prob(actions), log_prob)
    torch.testing.assert_close(ours.entropy(), sum(one.entropy() for one in torchs))
    divergence = sum(torch.distributions.kl_divergence(*pair) for pair in zip(torchs, other, strict=True))
    torch.testing.assert_close(ours.kl(theirs), divergence)
    assert torch.equal(ours.mode().reshape(*LEAD, -1), torch.stack([one.logits.argmax(-1) for one in torchs], -1))


@pytest.mark.parametrize("masked", [False, True])
@named(MULTI_DISCRETE)
def test_several_choices_are_drawn_with_their_probabilities(space, masked):
    family, draws = MultiCategoricalFamily(space), 20_000
    parameters = parameters_of(family, 1, ())
    mask = torch.arange(family.mask_size) % 3 != 1 if masked else None
    distribution = family(parameters.expand(draws, -1), mask if mask is None else mask.expand(draws, -1))
    numbers = drawn(family, distribution, (draws,)).reshape(draws, -1).unbind(-1)
    for number, one in zip(numbers, probabilities_of(space, parameters, mask), strict=True):
        share = torch.bincount(number, minlength=len(one)) / draws
        torch.testing.assert_close(share, one.float(), atol=4 * 0.5 / math.sqrt(draws), rtol=0)
        assert (share[one == 0] == 0).all()


def probabilities_of(space, parameters, mask):
    """Probabilities of each number's choices."""
    first = 0
    for size in space.nvec.ravel():
        own = slice(first, first + size)
        allowed = mask is not None and mask[own].any()
        yield (parameters[own].masked_fill(~mask[own], -INF) if allowed else parameters[own]).softmax(-1)
        first += size


def test_each_group_of_choices_is_masked_by_itself():
    family = MultiCategoricalFamily(spaces.MultiDiscrete([2, 3]))
    mask = torch.tensor([[False, True, False, False, False], [False, False, True, False, True]])
    distribution = family(torch.zeros(2, 5), mask)
    assert isinstance(distribution, MultiCategorical)
    expected = [[[0, 1, 0], [1 / 3] * 3], [[0.5, 0.5, 0], [0.5, 0, 0.5]]]
    torch.testing.assert_close(distribution.log_probabilities.exp(), torch.tensor(expected))


def test_the_environment_has_several_choices_from_their_starts_in_its_own_dtype():
    family = MultiCategoricalFamily(spaces.MultiDiscrete([3, 4], np.int16, start=[10, -2]))
    given = family.for_env(np.array([[0, 0], [2, 3]]))
    assert given.tolist() == [[10, -2], [12, 1]]
    assert given.dtype == np.int16


# Switches


@named(MULTI_BINARY)
def test_switches_are_those_of_torch(space):
    family = BernoulliFamily(space)
    logits, others = (parameters_of(family, seed) * 3 for seed in (1, 2))
    ours, axes = family(logits), len(space.shape)
    torchs, other = (
        Independent(torch.distributions.Bernoulli(logits=each.reshape(*LEAD, *space.shape)), axes)
        for each in (logits, others)
    )
    actions = drawn(family, ours)
    torch.testing.assert_close(ours.log_prob(actions), torchs.log_prob(actions.double()))
    torch.testing.assert_close(ours.entropy(), torchs.entropy())
    torch.testing.assert_close(ours.kl(family(others)), torch.distributions.kl_divergence(torchs, other))
    assert torch.equal(ours.mode(), torchs.base_dist.probs.gt(0.5).to(torch.int8))


def test_switches_are_on_as_often_as_their_probability_says():
    logits, draws = torch.tensor([-3.0, -0.5, 0.0, 2.0]), 50_000
    samples = Bernoulli(logits.expand(draws, 4), (4,)).sample(
        BernoulliFamily(spaces.MultiBinary(4)).noise((draws,), seeded())
    )
    torch.testing.assert_close(samples.float().mean(0), logits.sigmoid(), atol=4 * 0.5 / math.sqrt(draws), rtol=0)


def test_log_probs_of_switches_at_extreme_logits_are_exact():
    distribution = Bernoulli(torch.tensor([[200.0], [-200.0]]), (1,))
    assert distribution.log_prob(torch.tensor([[1], [1]], dtype=torch.int8)).tolist() == [0, -200]
    assert distribution.log_prob(torch.tensor([[0], [0]], dtype=torch.int8)).tolist() == [-200, 0]
    assert distribution.entropy().tolist() == [0, 0]


def test_entropy_of_an_almost_certain_switch_is_precise():
    logit = torch.tensor([[14.0]])
    exact = BernoulliFamily(spaces.MultiBinary(1))(logit.double()).entropy().item()
    off = 1 / (1 + math.exp(14))
    assert exact == pytest.approx(-off * math.log(off) - (1 - off) * math.log1p(-off))
    assert Bernoulli(logit, (1,)).entropy().item() == pytest.approx(exact, rel=1e-5)


# Continuous actions


def ends_of(space):
    """Whether each number has two bounds, the middle between them, and half their distance."""
    low, high = (np.asarray(bound, np.float64) for bound in (space.low, space.high))
    bounded = np.isfinite(low) & np.isfinite(high)
    middle, half = np.zeros(space.shape), np.ones(space.shape)
    middle[bounded] = (low[bounded] + high[bounded]) / 2
    half[bounded] = (high[bounded] - low[bounded]) / 2
    return SimpleNamespace(
        low=low, high=high, bounded=bounded, middle=torch.as_tensor(middle), half=torch.as_tensor(half)
    )


def normals_of(space, parameters):
    """Mean and standard deviation of u, [..., *shape]."""
    mean, log_std = (each.reshape(*LEAD, *space.shape) for each in parameters.chunk(2, -1))
    return mean, log_std.exp()


@named(BOXES)
def test_clipped_actions_have_the_density_of_a_normal_distribution_in_the_environments_units(space):
    family, ends = GaussianFamily(space), ends_of(space)
    parameters, others = (parameters_of(family, seed) * 0.5 for seed in (1, 2))
    ours = family(parameters)

    def torchs(parameters):
        mean, std = normals_of(space, parameters)
        return Independent(Normal(ends.middle + ends.half * mean, ends.half * std), len(space.shape))

    u = drawn(family, ours)
    torch.testing.assert_close(ours.log_prob(u), torchs(parameters).log_prob(ends.middle + ends.half * u))
    torch.testing.assert_close(ours.entropy(), torchs(parameters).entropy())
    divergence = torch.distributions.kl_divergence(torchs(parameters), torchs(others))
    torch.testing.assert_close(ours.kl(family(others)), divergence)
    assert torch.equal(ours.mode(), normals_of(space, parameters)[0])


@named(BOXES)
def test_squashed_actions_have_the_density_of_tanh_of_a_normal_distribution(space):
    family, ends = TanhGaussianFamily(space), ends_of(space)
    parameters = parameters_of(family) * 0.7
    ours, (mean, std) = family(parameters), normals_of(space, parameters)
    u = drawn(family, ours)
    affine = AffineTransform(ends.middle, ends.half)
    squashed = TransformedDistribution(Normal(mean, std), [TanhTransform(), affine])
    plain = Normal(mean, std)
    bounded = torch.as_tensor(ends.bounded)
    action = ends.middle + ends.half * u.tanh()
    expected = torch.where(bounded, squashed.log_prob(action), plain.log_prob(u)).reshape(*LEAD, -1).sum(-1)
    torch.testing.assert_close(ours.log_prob(u), expected, rtol=1e-6, atol=1e-6)
    others = parameters_of(family, 2)
    torch.testing.assert_close(
        ours.kl(family(others)), GaussianFamily(space)(parameters).kl(GaussianFamily(space)(others))
    )


@squash_or_clip
def test_the_density_of_a_squashed_action_adds_up_to_1_and_that_of_a_clipped_one_beyond_the_bounds(squash):
    family = family_for(spaces.Box(-1, 5, ()), squash)
    actions = np.linspace(-1, 5, 20_003)[1:-1] if squash else np.linspace(-20, 25, 20_001)
    u = (actions - 2) / 3
    u = torch.as_tensor(np.arctanh(u) if squash else u)
    density = family(torch.tensor([0.4, -0.3], dtype=torch.float64).expand(len(u), 2)).log_prob(u).exp().numpy()
    assert np.trapezoid(density, actions) == pytest.approx(1, abs=1e-5)


@squash_or_clip
def test_continuous_samples_are_normally_distributed_before_they_are_bounded(squash):
    family = family_for(spaces.Box(-3, 1, (2,)), squash)
    draws = 20_000
    u = drawn(family, family(torch.tensor([0.5, -1.0, -0.7, 0.3]).expand(draws, 4)), (draws,)).numpy()
    for place, (mean, log_std) in enumerate([(0.5, -0.7), (-1.0, 0.3)]):
        assert stats.kstest(u[:, place], stats.norm(mean, math.exp(log_std)).cdf).pvalue > 0.001
    assert abs(np.corrcoef(u.T)[0, 1]) < 4 / math.sqrt(draws)


@squash_or_clip
@named(BOXES)
def test_the_environment_gets_what_was_drawn_around_the_middle_and_never_beyond_a_bound(space, squash):
    family, ends = family_for(space, squash), ends_of(space)
    u = torch.randn(5000, *space.shape, generator=seeded()) * 3
    u[:4] = torch.tensor([1.0, -1.0, 1e4, -1e4]).reshape(4, *[1] * len(space.shape))
    given = family.for_env(u.numpy())
    assert given.dtype == space.dtype
    assert (given >= space.low).all()
    assert (given <= space.high).all()
    wide = u.double().numpy()
    inner = np.where(ends.bounded & squash, np.tanh(wide), wide)
    expected = np.clip(ends.middle.numpy() + ends.half.numpy() * inner, ends.low, ends.high)
    np.testing.assert_allclose(given, expected, rtol=1e-3 if space.dtype == np.float16 else 1e-6, atol=1e-6)
    reached = given[2:4][..., ends.bounded]
    assert (reached == np.stack([space.high[ends.bounded], space.low[ends.bounded]])).all()


def test_the_largest_number_is_no_bound():
    largest = np.finfo(np.float32).max
    family = GaussianFamily(spaces.Box(-largest, largest, (1,)))
    assert family.for_env(np.float32([[2.5]])).tolist() == [[2.5]]
    assert family(torch.zeros(2)).entropy().item() == pytest.approx((1 + math.log(2 * math.pi)) / 2)


def test_the_standard_deviations_need_not_depend_on_the_observation():
    for squash in (False, True):
        family = family_for(BOXES["2 by 3"], squash)
        assert family.parameter_count == 12
        assert list(family.free) == [6, 7, 8, 9, 10, 11]


def test_standard_deviations_stay_within_a_range():
    family = GaussianFamily(spaces.Box(-1, 1, (2,)))
    low, high = LOG_STD_RANGE
    assert family(torch.tensor([0.0, 0.0, -100.0, 100.0])).log_std.tolist() == [low, high]


def test_the_logarithm_of_the_slope_of_tanh_is_precise_near_0_and_finite_far_away():
    u = torch.tensor([-1e4, -50.0, -1.0, 0.0, 1e-3, 2.0, 50.0, 1e4], dtype=torch.float64)
    ours = log_tanh_slope(u)
    assert ours[0].item() == ours[-1].item() == pytest.approx(2 * math.log(2) - 2e4)
    assert ours[1].item() == ours[-2].item() == pytest.approx(2 * math.log(2) - 100)
    torch.testing.assert_close(ours[2:6], (1 - u[2:6].tanh() ** 2).log())


def squashed_entropy(mean, std):
    """Entropy of tanh(u) by a fine integral of −log p, with torch's density."""
    x = torch.linspace(-12, 12, 100_001, dtype=torch.float64)
    u = mean + std * x
    log_prob = Normal(mean, std, validate_args=False).log_prob(u) - TanhTransform().log_abs_det_jacobian(u, u.tanh())
    return -(log_prob * torch.softmax(-(x**2) / 2, 0)).sum().item()


@pytest.mark.parametrize(("largest", "error"), [(2.0, 5e-6), (3.0, 3e-5), (math.exp(2), 8e-3)])
def test_entropy_of_a_squashed_action_is_as_precise_as_it_says(largest, error):
    family = TanhGaussianFamily(spaces.Box(-1, 1, ()))
    for std in np.geomspace(0.05, largest, 6):
        for mean in np.linspace(-3, 3, 13):
            ours = family(torch.tensor([mean, math.log(std)], dtype=torch.float64)).entropy().item()
            assert ours == pytest.approx(squashed_entropy(mean, std), abs=error)


def test_entropy_of_a_squashed_action_has_the_gradient_of_what_it_computes():
    family = TanhGaussianFamily(BOXES["half open"])
    assert torch.autograd.gradcheck(
        lambda parameters: family(parameters).entropy(), parameters_of(family).requires_grad_()
    )


def test_entropy_of_a_squashed_action_is_greatest_at_a_finite_width():
    family = TanhGaussianFamily(spaces.Box(-1, 1, ()))
    entropy = family(torch.tensor([[0.0, -2.0], [0.0, -0.1], [0.0, 2.0]])).entropy()
    assert entropy.argmax().item() == 1
    assert entropy[1].item() == pytest.approx(math.log(2), abs=0.05)  # that of even odds over the interval


# Several parts


@squash_or_clip
@named(RECORDS)
def test_a_record_is_its_parts_side_by_side(space, squash):
    family, layout = family_for(space, squash), action_layout(space)
    families = {key: family_for(part, squash) for key, part in layout.parts_of(space).items()}
    assert family.parameter_count == sum(part.parameter_count for part in families.values())
    assert family.mask_size == sum(part.mask_size or 0 for part in families.values())
    parameters, others = parameters_of(family, 1), parameters_of(family, 2)
    mask = a_mask(family)
    ours, theirs = family(parameters, mask), family(others, mask)
    assert isinstance(ours, Composite)
    generator = seeded(3)
    actions, mode = drawn(family, ours), ours.mode()
    log_prob = entropy = divergence = torch.zeros(LEAD, dtype=torch.float64)
    for key, part in families.items():
        own, other = parameters[..., : part.parameter_count], others[..., : part.parameter_count]
        allowed = mask[..., : part.mask_size] if part.mask_size else None
        one, another = part(own, allowed), part(other, allowed)
        action = one.sample(part.noise(LEAD, generator))
        assert torch.equal(layout.part(key, actions), action.to(layout.parts[key].torch_dtype))
        assert torch.equal(layout.part(key, mode), one.mode().to(layout.parts[key].torch_dtype))
        log_prob = log_prob + one.log_prob(layout.part(key, actions))
        entropy, divergence = entropy + one.entropy(), divergence + one.kl(another)
        parameters, others = parameters[..., part.parameter_count :], others[..., part.parameter_count :]
        mask = mask[..., part.mask_size or 0 :]
    torch.testing.assert_close(ours.log_prob(actions), log_prob)
    torch.testing.assert_close(ours.entropy(), entropy)
    torch.testing.assert_close(ours.kl(theirs), divergence)


def test_free_places_of_a_record_are_those_of_its_parts():
    space = spaces.Tuple(
        (spaces.Discrete(3), BOXES["one"], spaces.Dict(x=spaces.Box(0, 1, (2,)), y=spaces.MultiBinary(2)))
    )
    family = family_for(space)
    assert family.parameter_count == 3 + 2 + 4 + 2
    assert list(family.free) == [4, 7, 8]


def test_a_record_of_which_no_part_can_be_masked_has_no_mask():
    family = family_for(spaces.Dict(x=spaces.MultiBinary(3), y=BOXES["one"]))
    assert family.mask_size is None
    assert list(family.free) == [4]


def test_the_environment_gets_dicts_and_tuples():
    space = spaces.Dict(x=spaces.Discrete(2, start=5), y=spaces.Tuple((spaces.Box(-2, 2, (1,)), spaces.MultiBinary(2))))
    family = family_for(space)
    assert isinstance(family, DictFamily)
    parameters = torch.tensor([[0.0, 1.0, 0.5, 0.0, 3.0, -3.0]])
    given = family.for_env(family(parameters).mode().numpy())
    assert given["x"].tolist() == [6]
    assert isinstance(given["y"], tuple)
    assert [part.tolist() for part in given["y"]] == [[[1.0]], [[1, 0]]]


# Which space has which


@squash_or_clip
def test_each_kind_of_space_has_its_family(squash):
    families = [
        (spaces.Discrete(3), CategoricalFamily),
        (MULTI_DISCRETE["ragged"], MultiCategoricalFamily),
        (MULTI_BINARY["3"], BernoulliFamily),
        (BOXES["one"], TanhGaussianFamily if squash else GaussianFamily),
        (RECORDS["dict"], DictFamily),
        (RECORDS["tuple"], TupleFamily),
    ]
    for space, family in families:
        assert type(family_for(space, squash)) is family
    assert family_for(spaces.Discrete(3)).parameter_count == 3


UNSUPPORTED = {
    "text": spaces.Text(3),
    "graph": spaces.Graph(spaces.Box(0, 1), None),
    "sequence": spaces.Sequence(spaces.Discrete(2)),
    "whole numbers": spaces.Box(0, 3, dtype=np.int32),
    "equal bounds": spaces.Box(np.zeros(99, np.float32), np.zeros(99, np.float32)),
    "no numbers": spaces.Box(0, 1, (0,)),
    "text in a dict": spaces.Dict(x=spaces.Discrete(2), y=spaces.Text(3)),
    "no parts": spaces.Tuple(()),
}
WORDS = (
    "Discrete, MultiDiscrete, MultiBinary, Box of floats with lower bounds below the upper ones, Dict of these, "
    "Tuple of these"
)


@named(UNSUPPORTED)
def test_a_space_without_a_distribution_is_refused_with_those_that_have_one(space):
    with pytest.raises(ValueError, match=rf"^action_space: got .*, must be one of: {WORDS}$") as refusal:
        family_for(space)
    assert "\n" not in str(refusal.value)


def test_bounds_that_are_no_numbers_are_refused():
    space = spaces.Box(-1, 1, (2,))
    space.low[1] = math.nan
    with pytest.raises(ValueError, match="must be one of: Discrete, "):
        family_for(space)


class Sign(Distribution):
    """Actions 1 or -1 as the environments take them, and 1 or 0 as a batch holds them."""

    def __init__(self, logits):
        self.logits = logits

    def sample(self, noise):
        return (noise < self.logits.sigmoid()).long()

    def mode(self):
        return (self.logits > 0).long()

    def log_prob(self, actions):
        return torch.nn.functional.logsigmoid(self.logits * (2 * actions - 1))[..., 0]

    def entropy(self):
        return torch.zeros(self.logits.shape[:-1])

    def kl(self, other):
        return torch.zeros(self.logits.shape[:-1])


class SignFamily(ActionFamily):
    layout = BoxLayout
    parameter_count = 1

    def noise(self, shape, generator):
        return torch.rand((*shape, 1), generator=generator)

    def __call__(self, parameters, mask=None):
        return Sign(parameters)

    def for_env(self, actions):
        return (2 * actions - 1).astype(self.space.dtype)


def test_another_kind_is_one_class_and_one_entry(monkeypatch):
    monkeypatch.setattr("a3c.networks.distributions.FAMILIES", [*FAMILIES, SignFamily])
    assert type(family_for(spaces.Box(-1, 1, (1,), np.int8))) is SignFamily
    assert type(family_for(spaces.Box(-1, 1, (1,)))) is GaussianFamily  # the first that supports it
    with pytest.raises(ValueError, match=r"must be one of: Discrete, .*, Box without NaN as a bound$"):
        family_for(spaces.Text(2))


def test_every_action_that_memory_has_room_for_can_be_drawn():
    assert {kind.layout for kind in FAMILIES} == set(ACTIONS)
