"""Hidden Markov models against all paths, autograd, hmmlearn and closed forms."""

import itertools
import math

import pytest
import torch

import zoo
from zoo.core.spaces import Image, Tokens, Vector
from zoo.data.batch import Batch
from zoo.data.loader import make_generator
from zoo.models.baselines.hmm import HMM, TextHMM
from zoo.nn.distributions.hidden_markov import Categorical, GaussianMixtures, HiddenMarkov, everywhere

S, T = 3, 5


def chain(kind: str, n_states: int = S) -> tuple[HiddenMarkov, torch.Tensor, torch.Tensor]:
    """A model with random parameters, sequences of it, and a mask of unequal lengths."""
    generator = make_generator(len(kind))
    rand = lambda *shape: torch.rand(shape, generator=generator, dtype=torch.float64)  # noqa: E731
    if kind == "categorical":
        emission = Categorical(n_states, 4)
        emission.log_probs.copy_(rand(n_states, 4).log().log_softmax(1))
        x = torch.randint(4, (6, T), generator=generator)
    else:
        emission = GaussianMixtures(n_states, 1 if kind == "gaussian" else 2, 2, 1e-3)
        emission.means.copy_(4 * rand(*emission.means.shape) + 100)
        emission.variances.copy_(rand(*emission.variances.shape) + 0.5)
        emission.log_weights.copy_(rand(*emission.log_weights.shape).log_softmax(1))
        x = 4 * rand(6, T, 2) + 100
    model = HiddenMarkov(emission, n_states)
    model.log_start.copy_(rand(n_states).log().log_softmax(0))
    model.log_transition.copy_(rand(n_states, n_states).log().log_softmax(1))
    mask = torch.arange(T) < torch.tensor([T, 1, 3, T, 2, 4])[:, None]
    return model, x, mask


def density(emission, x: torch.Tensor, state: int) -> float:
    """Log-density of one frame in one state, by torch.distributions."""
    if isinstance(emission, Categorical):
        return float(emission.log_probs[state, int(x)])
    normal = torch.distributions.Normal(emission.means[state], emission.variances[state].sqrt())
    return float((normal.log_prob(x).sum(-1) + emission.log_weights[state]).logsumexp(0))


def all_paths(model: HiddenMarkov, x: torch.Tensor) -> dict[tuple[int, ...], float]:
    """Joint log-probability of a sequence (T, ...) and every path."""
    found = {}
    for path in itertools.product(range(len(model.log_start)), repeat=len(x)):
        total = float(model.log_start[path[0]]) + density(model.emission, x[0], path[0])
        for t in range(1, len(x)):
            total += float(model.log_transition[path[t - 1], path[t]]) + density(model.emission, x[t], path[t])
        found[path] = total
    return found


@pytest.mark.parametrize("kind", ["categorical", "gaussian", "mixture"])
def test_inference_is_that_of_all_paths(kind: str) -> None:
    model, x, mask = chain(kind)
    likelihood, posterior, (path, score) = model.log_prob(x, mask), model.posterior(x, mask), model.viterbi(x, mask)
    moves = torch.zeros(S, S, dtype=torch.float64)
    for row, length in enumerate(mask.sum(1).tolist()):
        paths = all_paths(model, x[row, :length])
        total = float(torch.tensor(list(paths.values()), dtype=torch.float64).logsumexp(0))
        assert float(likelihood[row]) == pytest.approx(total, abs=1e-9)
        best = max(paths, key=paths.__getitem__)
        assert tuple(path[row, :length].tolist()) == best
        assert float(score[row]) == pytest.approx(paths[best], abs=1e-9)
        assert float(score[row]) < total, "the best path is not all of them"
        for t, state in itertools.product(range(length), range(S)):
            share = sum(math.exp(v - total) for p, v in paths.items() if p[t] == state)
            assert float(posterior[row, t, state]) == pytest.approx(share, abs=1e-9)
        for p, v in paths.items():
            for one, other in itertools.pairwise(p):
                moves[one, other] += math.exp(v - total)
    torch.testing.assert_close(model.expect(x, mask)[1], moves, atol=1e-9, rtol=0)
    assert not torch.allclose(model.log_prob(x), likelihood), "the mask has an effect"
    assert posterior[~mask].abs().sum() == 0


@pytest.mark.parametrize("kind", ["categorical", "gaussian", "mixture"])
def test_expected_transitions_are_a_gradient(kind: str) -> None:
    """d log p / d log a_ij is the expected number of transitions (Fisher's identity)."""
    model, x, mask = chain(kind)
    free = model.log_transition.clone().requires_grad_()
    del model.log_transition
    model.log_transition = free
    (gradient,) = torch.autograd.grad(model.log_prob(x, mask).sum(), free)
    torch.testing.assert_close(model.expect(x, mask)[1].detach(), gradient)


@pytest.mark.parametrize("left_right", [False, True])
@pytest.mark.parametrize("kind", ["categorical", "gaussian", "mixture"])
def test_the_likelihood_never_falls(kind: str, left_right: bool) -> None:
    model, x, mask = chain(kind, 2)
    model = HiddenMarkov(model.emission, 2, left_right)
    history = model.fit(x, mask, iterations=30, tolerance=-1.0)
    gains = [after - before for before, after in itertools.pairwise(history)]
    assert len(history) == 31
    assert min(gains) > -1e-9
    assert max(gains) > 1e-3
    assert float(model.log_transition.exp().sum(1).max()) == pytest.approx(1)
    if left_right:
        assert float(model.log_transition.exp()[1, 0]) == 0
    before = history[-1]
    possible = model.log_transition.exp() > 0
    model.log_transition.copy_((model.log_transition.exp() + 0.3 * possible).log().log_softmax(1))
    assert float(model.log_prob(x, mask).sum()) < before, "another chain is worse"


@pytest.mark.parametrize("kind", ["categorical", "gaussian"])
def test_equals_hmmlearn(kind: str) -> None:
    hmmlearn = pytest.importorskip("hmmlearn.hmm")
    model, x, mask = chain(kind)
    lengths = mask.sum(1).tolist()
    if kind == "categorical":
        other = hmmlearn.CategoricalHMM(S, n_iter=1, tol=-1, init_params="", n_features=4)
        other.emissionprob_ = model.emission.log_probs.exp().numpy()
        frames = x[mask][:, None].numpy()
    else:
        other = hmmlearn.GaussianHMM(
            S, n_iter=1, tol=-1, init_params="", min_covar=0, covars_prior=0, covars_weight=0, means_weight=0
        )
        other.n_features = 2
        other.means_, other.covars_ = model.emission.means[:, 0].numpy(), model.emission.variances[:, 0].numpy()
        frames = x[mask].numpy()
    other.startprob_, other.transmat_ = model.log_start.exp().numpy(), model.log_transition.exp().numpy()
    assert other.score(frames, lengths) == pytest.approx(float(model.log_prob(x, mask).sum()), abs=1e-8)
    score, path = other.decode(frames, lengths)
    assert path.tolist() == model.viterbi(x, mask)[0][mask].tolist()
    assert score == pytest.approx(float(model.viterbi(x, mask)[1].sum()), abs=1e-8)
    other.fit(frames, lengths)
    before = model.log_transition.clone()
    model.step(x, mask)
    close = lambda a, b: torch.testing.assert_close(torch.tensor(a), b, atol=1e-8, rtol=0)  # noqa: E731
    close(other.transmat_, model.log_transition.exp())
    close(other.startprob_, model.log_start.exp())
    if kind == "categorical":
        close(other.emissionprob_, model.emission.log_probs.exp())
    else:
        close(other.means_, model.emission.means[:, 0])
    assert not torch.allclose(before, model.log_transition, atol=1e-3)


def test_one_state_is_a_gaussian() -> None:
    """Its fit has the moments of the data, whatever the order; and a state that sees nothing stays as it is."""
    x = torch.randn(20, 4, 3, generator=make_generator(1)).double() * 2 + 5
    model = HiddenMarkov(GaussianMixtures(1, 1, 3, 1e-3), 1)
    model.fit(x)
    frames = x.flatten(0, 1)
    torch.testing.assert_close(model.emission.means[0, 0], frames.mean(0))
    torch.testing.assert_close(model.emission.variances[0, 0], frames.var(0, correction=0))
    exact = torch.distributions.Normal(frames.mean(0), frames.std(0, correction=0)).log_prob(x).sum((1, 2))
    torch.testing.assert_close(model.log_prob(x), exact)


def test_parameters_are_found_again() -> None:
    """From samples of a known model, up to the names of the states."""
    true = HiddenMarkov(GaussianMixtures(2, 1, 1, 1e-3), 2)
    true.emission.means.copy_(torch.tensor([[[-2.0]], [[2.0]]]))
    true.log_transition.copy_(torch.tensor([[0.9, 0.1], [0.3, 0.7]], dtype=torch.float64).log())
    x, path = true.sample(400, 50, make_generator(0))
    moves = torch.zeros(2, 2).index_put_(
        (path[:, :-1].flatten(), path[:, 1:].flatten()), torch.ones(1), accumulate=True
    )
    error = 4 * math.sqrt(0.25 / 4000)
    assert torch.allclose((moves / moves.sum(1, keepdim=True)).double(), true.log_transition.exp(), atol=error)
    model = HiddenMarkov(GaussianMixtures(2, 1, 1, 1e-3), 2)
    model.fit(x)
    order = model.emission.means[:, 0, 0].argsort()
    found = model.log_transition.exp()[order][:, order]
    assert torch.allclose(found, true.log_transition.exp(), atol=error)
    assert torch.allclose(model.emission.means[order], true.emission.means, atol=error)
    assert (order.argsort()[model.viterbi(x)[0]] == path).double().mean() > 0.95


def test_text_is_read_token_by_token() -> None:
    """The decoder's conditionals multiply to the likelihood of the whole, and a window is generated from them."""
    torch.manual_seed(0)
    model = TextHMM(zoo.DataSpec(Tokens(8, 5)), n_states=3)
    data = torch.randint(5, (30, 9), generator=make_generator(1)).int()
    model.fit(data)
    x = data.long()
    chain = model.net.chain
    joint = chain.log_prob(x)
    first = chain.log_prob(x[:, :1])
    torch.testing.assert_close(model.log_prob(x[:, :-1], x[:, 1:]), joint - first)
    logits, state = model.net.prefill(torch.cat([torch.zeros(30, 2).long(), x[:, :4]], 1), torch.full((30,), 2))
    torch.testing.assert_close(logits, model.net(x[:, :4])[:, -1])
    torch.testing.assert_close(model.net.step(x[:, 4], state), model.net(x[:, :5])[:, -1])
    assert not torch.allclose(model.net.step(x[:, 5], state), model.net(x[:, :5])[:, -1])


def test_a_token_of_no_training_window_is_possible_and_costs_more() -> None:
    model = TextHMM(zoo.DataSpec(Tokens(8, 5)), n_states=3)
    data = torch.randint(4, (30, 9), generator=make_generator(1)).int()
    model.fit(data)
    known, new = torch.tensor([[0, 1, 2, 3, 0]]), torch.tensor([[0, 1, 4, 3, 0]])
    costs = [model.token_nll(Batch(x[:, :-1], x[:, 1:]))[0][0] for x in (known, new)]
    assert costs[1].isfinite().all()
    assert costs[1][1] > costs[0][1] + 5
    assert torch.allclose(model.net(new).logsumexp(-1), torch.zeros(1, 5, dtype=torch.float64))
    chain = HiddenMarkov(Categorical(3, 5), 3)
    chain.fit(data.long(), iterations=5)
    assert chain.log_prob(new).isneginf().all(), "control: without pseudo-counts it is impossible"


def test_frames_of_images_are_rows() -> None:
    model = HMM(zoo.DataSpec(Image(3, 4, 2)), n_states=2)
    x = torch.rand(5, 3, 4, 2)
    assert torch.equal(model.frames(x)[:, 1], x[:, :, 1].flatten(1))
    assert torch.equal(model.frames(x.flatten(1)), model.frames(x))
    assert model.states(x).shape == (5, 4)
    points = HMM(zoo.DataSpec(Vector(6)))
    assert points.frames(torch.rand(5, 6)).shape == (5, 6, 1)
    assert everywhere(x).all()
    assert len(model.loss(Batch(x, torch.zeros(5)))) == 1
