"""Recipes against their definitions written out in NumPy, and TRL's settings in both directions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from preferences import complementary

import ipodyn
from ipodyn import recipes

K, ROUNDS = 4, 6


@pytest.fixture
def game(rng):
    """(P, pi_ref, pi_0, start): a random preference matrix and three random policies."""
    P = complementary(rng.uniform(0.05, 0.95, (K, K)))
    return P, *rng.dirichlet(np.full(K, 3.0), 3)


def softmax(z):
    weights = np.exp(z - z.max())
    return weights / weights.sum()


def iterate(step, policy):
    policies = []
    for _ in range(ROUNDS):
        policy = step(policy)
        policies.append(policy)
    return np.stack(policies)


def itself(policy):  # one function, so that rollouts compile once
    return policy


def orbit(recipe, P, pi_ref, pi_0, start):
    loop = recipe.loop(P, pi_ref=pi_ref, pi_0=pi_0)
    return ipodyn.rollout(loop, start, num_steps=ROUNDS, save=itself).saved


ETA, TAU, BETA = 0.7, 0.3, 2.5
# What each algorithm is, in the words of its own papers: from the policy to the next one.
DEFINITIONS = {
    "one-shot": (recipes.one_shot(beta=BETA), lambda P, r, q: lambda p: softmax(np.log(r) + BETA * P @ q)),
    "online": (recipes.online(beta=BETA), lambda P, r, q: lambda p: softmax(np.log(r) + BETA * P @ p)),
    "last-checkpoint": (
        recipes.last_checkpoint(beta=BETA),
        lambda P, r, q: lambda p: softmax(np.log(p) + BETA * P @ q),
    ),
    "self-rewarding": (
        recipes.self_rewarding(beta=BETA),  # Hedge: weights times exp(step * payoff)
        lambda P, r, q: lambda p: p * np.exp(BETA * P @ p) / np.sum(p * np.exp(BETA * P @ p)),
    ),
    "mirror-descent": (
        recipes.mirror_descent(eta=ETA, tau=TAU),  # p' ~ p exp(eta (gradient of the payoff - tau * KL))
        lambda P, r, q: lambda p: softmax(np.log(p) + ETA * (P @ p - TAU * (np.log(p) - np.log(r)))),
    ),
}


@pytest.mark.parametrize("name", DEFINITIONS)
def test_a_recipe_is_its_algorithm(name, game):
    recipe, definition = DEFINITIONS[name]
    P, pi_ref, pi_0, start = game
    expected = iterate(definition(P, pi_ref, pi_0), start)
    np.testing.assert_allclose(orbit(recipe, P, pi_ref, pi_0, start), expected, rtol=1e-12, atol=0)  # roundings
    assert recipe.name == name and ({**recipes.BY_BETA, **recipes.BY_STEP})[name]


def test_nash_md_is_the_loop_of_its_mixture(game):
    """The algorithm of Munos et al., step by step, against the loop that its mixtures follow."""
    P, pi_ref, _, start = game

    def mix(policy):
        return softmax((1 - ETA * TAU) * np.log(policy) + ETA * TAU * np.log(pi_ref))

    expected = iterate(lambda p: softmax(np.log(mix(p)) + ETA * P @ mix(p)), start)
    loop = recipes.nash_md(eta=ETA, tau=TAU).loop(P, pi_ref=pi_ref)
    mixtures = ipodyn.rollout(loop, mix(start), num_steps=ROUNDS, save=itself).saved
    np.testing.assert_allclose(mixtures, [mix(policy) for policy in expected], rtol=1e-12)
    before = np.concatenate([mix(start)[None], mixtures[:-1]])
    trained = np.stack([recipes.nash_md_policy(loop, mixture) for mixture in before])
    np.testing.assert_allclose(trained, expected, rtol=1e-12)


def test_the_fixed_point_of_mirror_descent_is_one_for_all_steps(game):
    """It is the regularised equilibrium: pi ~ pi_ref exp(P pi / tau), whatever the step."""
    P, pi_ref, _, _ = game
    stars = jax.vmap(
        lambda eta: ipodyn.fixed_point(recipes.mirror_descent(eta=eta, tau=TAU).loop(P, pi_ref=pi_ref)).policy
    )(jnp.array([0.1, 1.0, 3.0]))
    for star in np.asarray(stars):
        np.testing.assert_allclose(star, softmax(np.log(pi_ref) + P @ star / TAU), rtol=1e-8)


def test_derivatives_reach_the_settings_of_a_recipe(game):
    P = game[0]

    def omega_gain(tau):
        loop = recipes.mirror_descent(eta=0.5, tau=tau).loop(P)
        return ipodyn.contraction_bound(loop)

    # alpha + beta ||A|| / 2 with alpha = 1 - eta tau, beta = eta
    np.testing.assert_allclose(jax.grad(omega_gain)(0.3), -0.5, rtol=1e-12)


@pytest.mark.parametrize(("loss_type", "beta"), [("ipo", 150.0), ("sigmoid", 5.0)])
@pytest.mark.parametrize("reference", ["first", "last", 0.3])
def test_trl_there_and_back(loss_type, beta, reference):
    recipe = recipes.from_trl(beta=0.2, loss_type=loss_type, tokens=30, reference=reference, on_policy=0.5)
    assert recipe.point() == {"alpha": {"first": 0.0, "last": 1.0}.get(reference, 0.3), "beta": beta, "lam": 0.5}
    settings = recipes.to_trl(recipe)
    assert settings.arguments() == {"beta": 0.2, "loss_type": loss_type}
    again = recipes.from_trl(
        **settings.arguments(), tokens=30, reference=settings.reference, on_policy=settings.on_policy
    )
    assert again.point() == recipe.point() and type(again.objective) is type(recipe.objective)


@pytest.mark.parametrize("loss_type", ["ipo", "sigmoid"])
def test_trl_trained_to_its_end_is_the_optimum_of_the_recipe(rng, loss_type):
    """TRL's losses, written out, minimised by SciPy over completions of equal length: the fixed data of one round."""
    minimize = pytest.importorskip("scipy.optimize").minimize
    tau, tokens = 0.4, 30
    P, (pi_ref, mu) = complementary(rng.uniform(0.1, 0.9, (K, K))), rng.dirichlet(np.full(K, 3.0), 2)

    def loss(z):
        """The mean over pairs drawn from mu and judged by P; logits z are sums of log-probabilities over tokens."""
        ratio = jax.nn.log_softmax(z) - np.log(pi_ref)
        if loss_type == "ipo":
            ratio = ratio / tokens
        margin = ratio[:, None] - ratio[None, :]
        each = (margin - 1 / (2 * tau)) ** 2 if loss_type == "ipo" else jnp.logaddexp(0.0, -tau * margin)
        return mu @ (P * each) @ mu

    found = minimize(jax.jit(jax.value_and_grad(loss)), np.zeros(K), jac=True, tol=1e-13)
    recipe = recipes.from_trl(beta=tau, loss_type=loss_type, tokens=tokens)
    assert recipe.rounds == 1
    once = recipe.loop(P, pi_ref=pi_ref, pi_0=mu)(pi_ref)
    # BFGS stops at a gradient of about 1e-8; the curvature in the scale of logits is at least tau^2 mu^2 / tokens^2.
    np.testing.assert_allclose(softmax(found.x), once, atol=2e-4)


def test_trl_loss_in_trl_terms(rng):
    """TRL's IPO loss is (margin - 1 / (2 beta))^2 of log-ratios per token, its DPO loss -log sigmoid(beta * margin)."""
    margin, beta, tokens = rng.normal(size=20), 0.3, 7
    for loss_type, expected in (
        ("ipo", tokens**2 * (margin / tokens - 1 / (2 * beta)) ** 2),
        ("sigmoid", np.log1p(np.exp(-beta * margin))),
    ):
        recipe = recipes.from_trl(beta=beta, loss_type=loss_type, tokens=tokens)
        found = recipe.objective.pair_losses(jnp.asarray(margin), jnp.full(20, recipe.beta))
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_a_length_belongs_to_ipo_alone():
    assert recipes.from_trl(beta=0.1, tokens=200).point() == recipes.from_trl(beta=0.1).point()
    assert recipes.from_trl(beta=0.1, loss_type="ipo", tokens=200).point()["beta"] == 2000
    online = recipes.online(beta=10.0)
    assert recipes.to_trl(online, tokens=200).beta == 20
    with pytest.raises(ValueError, match="`tokens` is needed"):
        recipes.to_trl(online)


def test_descriptions_say_which_way_numbers_point():
    recipe = recipes.from_trl(beta=0.1, loss_type="ipo", tokens=200, reference="last", on_policy=1.0)
    text = str(recipe)
    assert text == recipe.describe()
    for words in (
        "beta  = 2000",
        "TRL's beta is 0.1 at 200 tokens a completion (up: closer",
        "up: further",
        "last checkpoint",
        "current policy",
    ):
        assert words in text
    text = str(recipes.to_trl(recipe))
    for words in ("beta = 0.1", "up: closer", "ipodyn's beta is 2000 at 200 tokens"):
        assert words in text
    assert "one round" in str(recipes.one_shot(beta=1.0))
    assert "TRL's beta is 0.1 times the tokens of a completion" in str(recipes.online(beta=10.0))
    assert "not a loop" in str(recipes.from_trl()) and "not a loop" not in str(recipes.from_trl(on_policy=1.0))
    described = []
    jax.jit(lambda beta: described.append(str(recipes.online(beta=beta))) or beta)(2.0)
    assert "(traced)" in described[0]


@pytest.mark.parametrize(
    ("share", "reference", "data"),
    [
        (0.0, "the reference stays at the start", "all pairs are fixed data"),
        (0.4, "the reference is part first, part current policy", "pairs are part fixed data, part sampled from"),
        (1.0, "the reference is the last checkpoint", "all pairs are sampled from the current policy"),
    ],
)
def test_words_for_no_share_a_part_and_all(share, reference, data):
    text = str(recipes.from_trl(beta=0.1, reference=share, on_policy=share))
    assert reference in text and data in text
    described = []  # where the value is not known yet, words that hold for any
    jax.jit(lambda x: described.append(str(recipes.custom(alpha=x, beta=1.0, lam=x))) or x)(share)
    assert "part first" in described[0] and "part fixed data" in described[0]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: recipes.online(beta=-1.0), "`beta` is -1.0, not in"),
        (lambda: recipes.mirror_descent(eta=2.0, tau=0.6), "`eta * tau` is 1.2: it must be at most 1"),
        (lambda: recipes.mirror_descent(eta=0.0, tau=0.6), "`eta` is 0.0"),
        (lambda: recipes.nash_md(eta=2.0, tau=0.5), "`eta * tau` is 1: it must be below 1"),
        (lambda: recipes.from_trl(beta=0.0), "`beta` is 0.0, not in"),
        (lambda: recipes.from_trl(loss_type="ipo"), '`tokens` is needed for loss_type "ipo": TRL'),
        (lambda: recipes.from_trl(tokens=0), "`tokens` is 0.0, not in"),
        (lambda: recipes.from_trl(loss_type="hinge"), "`loss_type` is 'hinge'"),
        (lambda: recipes.from_trl(reference="second"), "`reference` is 'second'"),
        (lambda: recipes.from_trl(reference=1.5), "`reference` is 1.5, outside"),
        (lambda: recipes.from_trl(on_policy=-0.5), "`on_policy` is -0.5, outside"),
    ],
)
def test_bad_settings_meet_a_sentence(call, words):
    with pytest.raises(ValueError, match="^" + "".join(f"[{c}]" if c in "*()[]" else c for c in words)):
        call()
