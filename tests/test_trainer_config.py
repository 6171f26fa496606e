"""Trainers' configurations, in the words of their own repositories, against the loops that they train."""

import json
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest
from preferences import complementary

import ipodyn
from ipodyn import recipes

K = 4


def softmax(z):
    weights = np.exp(z - z.max())
    return weights / weights.sum()


@pytest.fixture
def game(rng):
    """(P, first model, current policy)."""
    return complementary(rng.uniform(0.1, 0.9, (K, K))), *rng.dirichlet(np.full(K, 3.0), 2)


def fitted(P, mu, target_of):
    """Log-ratios h that minimise sum mu_i mu_j P_ij (h_i - h_j - target)^2, by least squares over the pairs."""
    rows, values, weights = [], [], []
    for i in range(K):
        for j in range(K):
            row = np.zeros(K)
            row[i] += 1
            row[j] -= 1
            rows.append(row)
            values.append(target_of)
            weights.append(np.sqrt(mu[i] * mu[j] * P[i, j]))
    weights = np.array(weights)
    return np.linalg.lstsq(np.array(rows) * weights[:, None], np.array(values) * weights, rcond=None)[0]


def test_inpo_and_comal(game):
    """INPO: squares of the log-ratio to first^r last^(1 - r), winner less loser, minus 1 / (2 eta); own pairs."""
    P, first, policy = game
    eta, ratio = 0.3, 1 / 3
    h = fitted(P, policy, 1 / (2 * eta))
    expected = softmax(ratio * np.log(first) + (1 - ratio) * np.log(policy) + h)
    recipe = recipes.from_config({"eta": eta, "tau_eta_ratio": ratio, "max_lr": "5e-7"})
    np.testing.assert_allclose(recipe.loop(P, pi_ref=first)(policy), expected, rtol=1e-10)


def test_mnpo_averages_over_tokens(game):
    """MNPO: as INPO, of log-probabilities per token; its weights on older checkpoints are named."""
    P, first, policy = game
    tokens = 12
    settings = {"eta": "0.0075", "ratio": "1/3", "max_history_t": 2, "beta": 10, "history_weights": [1.0, 0.0]}
    h = tokens * fitted(P, policy, 1 / (2 * 0.0075))
    expected = softmax(np.log(first) / 3 + 2 / 3 * np.log(policy) + h)
    recipe = recipes.from_config(settings, tokens=tokens)
    np.testing.assert_allclose(recipe.loop(P, pi_ref=first)(policy), expected, rtol=1e-9)
    assert "older checkpoints" not in str(recipe)
    assert "older checkpoints" in str(recipes.from_config({"eta": 1, "ratio": 0.5}, tokens=1))


def test_sppo(game):
    """SPPO: each log-ratio to the last checkpoint is pulled to (P - 1/2) / beta of the policy's own pairs."""
    P, first, policy = game
    expected = softmax(np.log(policy) + (P @ policy - 0.5) / 0.25)
    recipe = recipes.from_config({"loss_type": "sppo", "beta": 0.25})
    np.testing.assert_allclose(recipe.loop(P, pi_ref=first)(policy), expected, rtol=1e-12)
    assert "beta 0.001 (SPPO's default" in str(recipes.from_config({"loss_type": "sppo"}))


def test_sppo_with_hard_labels_in_trl(game):
    """Each log-ratio to +1 / (2 beta) where it won, -1 / (2 beta) where it lost: least squares over the fixed pairs."""
    P, first, mu = game
    beta = 0.4
    shares = [(0.5 / beta, P @ mu), (-0.5 / beta, P.T @ mu)]  # (target, how often each response meets it)
    expected = softmax(np.log(first) + sum(target * often for target, often in shares))
    recipe = recipes.from_config({"loss_type": "sppo_hard", "beta": beta})
    assert (recipe.alpha, recipe.lam, recipe.rounds) == (0, 0, 1)
    np.testing.assert_allclose(recipe.loop(P, pi_ref=first, pi_0=mu)(first), expected, rtol=1e-12)


GOLDEN = json.loads((pathlib.Path(__file__).parent / "golden" / "trl_losses_tokens.json").read_text())


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: f"{case['loss_type']}-{case['tokens']}")
def test_losses_of_many_tokens_are_trls(case):
    """What TRL computes on completions of many tokens is the pair loss of the recipe, up to IPO's constant factor."""
    tokens, logits, pi_ref = case["tokens"], np.array(case["logits"]), np.array(case["pi_ref"])
    recipe = recipes.from_trl(beta=case["tau"], loss_type=case["loss_type"], tokens=tokens)
    h = np.log(softmax(logits)) - np.log(pi_ref)
    winners, losers, strength = np.array(case["winners"]), np.array(case["losers"]), recipe.point()["beta"]
    if case["loss_type"] == "sppo_hard":
        mine = (h[winners] - recipe.beta / 2) ** 2 + (h[losers] + recipe.beta / 2) ** 2
    else:
        mine = recipe.objective.pair_losses(jnp.asarray(h[winners] - h[losers]), jnp.full(len(winners), strength))
        mine = mine / (tokens**2 if case["loss_type"] == "ipo" else 1)
    np.testing.assert_allclose(mine, case["losses"], rtol=1e-10)  # sums over up to 200 tokens


# settings, (alpha, beta, lam), objective, words of the notes
TRL = {
    "nothing said": ({}, (0.0, 10.0, 0.0), "DPO", ("beta 0.1 (TRL", "sigmoid", "reference fixed", "one round")),
    "a beta": ({"beta": 0.2, "learning_rate": 1e-6}, (0.0, 5.0, 0.0), "DPO", ("fixed data",)),
    "a list with one loss": ({"beta": "1e-1", "loss_type": ["sigmoid"]}, (0.0, 10.0, 0.0), "DPO", ()),
    "averaged ipo": ({"beta": 0.1, "loss_type": "ipo"}, (0.0, 2000.0, 0.0), "IPO", ()),
    "averaged sigmoid": ({"beta": 0.1, "loss_type": "sigmoid_norm"}, (0.0, 2000.0, 0.0), "DPO", ("at 200 tokens",)),
    "online": ({"max_new_tokens": 64}, (0.0, 10.0, 1.0), "DPO", ("an online trainer",)),
    "betas by epoch": ({"beta": [0.5, 0.25]}, (0.0, 4.0, 1.0), "DPO", ("the last of 2",)),
    "full sync": (
        {"sync_ref_model": True, "ref_model_mixup_alpha": 1.0},
        (1.0, 10.0, 0.0),
        "DPO",
        ("last checkpoint",),
    ),
    "harmless": ({"label_smoothing": 0, "rpo_alpha": None, "f_divergence_type": "FDivergenceType.REVERSE_KL"},) * 1
    + ((0.0, 10.0, 0.0), "DPO", ()),
}


@pytest.mark.parametrize("case", TRL)
def test_trl_configurations(case):
    settings, point, objective, words = TRL[case]
    recipe = recipes.from_config(settings, tokens=200)
    assert tuple(recipe.point().values()) == pytest.approx(point)
    assert type(recipe.objective).__name__ == objective
    for word in words:
        assert word in str(recipe)


def test_online_ipo_sums_and_needs_no_length():
    for tokens in (None, 200):
        recipe = recipes.from_config({"loss_type": "ipo", "beta": 0.1, "judge": "pair_rm"}, tokens=tokens)
        assert recipe.point() == {"alpha": 0.0, "beta": 10.0, "lam": 1.0} and recipe.tokens == 1


def test_what_the_script_does_between_rounds_wins():
    recipe = recipes.from_config({"sync_ref_model": True}, reference="last", on_policy=0.5)
    assert (recipe.alpha, recipe.lam) == (1.0, 0.5)
    assert "not a loop" not in str(recipe)


REFUSED = {
    "synced reference": ({"sync_ref_model": True}, "no point (alpha, beta, lam)"),
    "ipo without length": ({"loss_type": "ipo"}, "`tokens` is needed"),
    "mnpo without length": ({"eta": 0.1, "ratio": 0.5}, "`tokens` is needed for MNPO"),
    "sum of losses": ({"loss_type": ["sigmoid", "sft"]}, "a sum of losses"),
    "other loss": ({"loss_type": "hinge"}, "`loss_type` is 'hinge'"),
    "smoothed labels": ({"label_smoothing": 0.1}, "(1 - s) P + s P^T"),
    "no reference": ({"reference_free": True}, "without a reference"),
    "other divergence": ({"f_divergence_type": "js_divergence"}, "reverse KL"),
    "sft term": ({"rpo_alpha": 1.0}, "supervised term"),
    "nash-md": ({"mixture_coef": 0.5, "beta": 0.1}, "eta 5, tau 0.1"),
    "text for a number": ({"beta": "large"}, "`beta` is 'large'; give a number"),
    "empty list": ({"beta": []}, "empty list"),
    "ratio above 1": ({"eta": 0.1, "tau_eta_ratio": 1.5}, "`tau_eta_ratio` is 1.5"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_point_of_the_cube_is_told_why(case):
    settings, words = REFUSED[case]
    with pytest.raises(ValueError) as refused:
        recipes.from_config(settings)
    assert words in str(refused.value) and "\n" not in str(refused.value)


def test_rounds_of_other_trainers_are_their_own():
    for settings in ({"eta": 0.1, "tau_eta_ratio": 0.5}, {"loss_type": "sppo"}):
        with pytest.raises(ValueError, match="`reference` is 'last', but"):
            recipes.from_config(settings, reference="last")


def test_smoothed_labels_are_a_mixed_preference(game):
    """The cure that the refusal names: DPO's loss with labels smoothed by s is that of (1 - s) P + s P^T."""
    P, _, mu = game
    s = 0.2
    h = np.random.default_rng(0).normal(size=K)
    margin = h[:, None] - h[None, :]
    smoothed = (1 - s) * np.logaddexp(0, -margin) + s * np.logaddexp(0, margin)
    mixed = (1 - s) * P + s * P.T
    np.testing.assert_allclose(mu @ (P * smoothed) @ mu, mu @ (mixed * np.logaddexp(0, -margin)) @ mu, rtol=1e-12)


def test_files(tmp_path):
    pytest.importorskip("yaml")
    (tmp_path / "a.yaml").write_text("# comal\neta: 0.002\ntau_eta_ratio: 0.25\nlearning_rate: 5.0e-7\n")
    (tmp_path / "a.json").write_text(json.dumps({"beta": 0.2}))
    settings = recipes.read_config(tmp_path / "a.yaml")
    assert recipes.from_config(settings).point() == {"alpha": 0.75, "beta": 500.0, "lam": 1.0}
    assert recipes.read_config(tmp_path / "a.json") == {"beta": 0.2}
    for name, text, words in (
        ("list.yaml", "- 1\n- 2\n", "holds list, not settings"),
        ("broken.json", "{", "is no YAML or JSON"),
        ("broken.yaml", "a: [", "is no YAML or JSON"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(ValueError, match=words) as refused:
            recipes.read_config(tmp_path / name)
        assert name in str(refused.value) and "\n" not in str(refused.value)
    with pytest.raises(ValueError, match="cannot be read"):
        recipes.read_config(tmp_path / "absent.yaml")


class TestCommandLine:
    """`ipodyn diagnose` with a trainer's settings."""

    @pytest.fixture
    def described(self, capsys, tmp_path):
        """Runs the command on a three-cycle: (exit code, what it printed, what it complained of)."""
        pytest.importorskip("typer")
        pytest.importorskip("polars")
        from ipodyn._cli.app import run

        def call(*arguments):
            out = str(tmp_path / "out")
            code = run(["diagnose", "--problem", "three_cycle", "--overwrite", "--out", out, *map(str, arguments)])
            printed = capsys.readouterr()
            return code, printed.out, printed.err

        return call

    def test_defaults_are_trls_and_said(self):
        from ipodyn._cli.loop import LoopOptions

        told = str(LoopOptions(trl_beta=0.2).chosen())
        for words in ("TRL, DPO", "alpha = 0", "beta  = 5", "lam   = 0", "(TRL's default, not said)", "not a loop"):
            assert words in told

    def test_a_file_and_what_is_said_beside_it(self, described, tmp_path):
        (tmp_path / "dpo.json").write_text(json.dumps({"beta": 0.5, "loss_type": "ipo"}))
        code, out, _ = described("--config", tmp_path / "dpo.json", "--tokens", 3, "--trl-reference", 0.5)
        assert code == 0
        for words in ("TRL, IPO", "alpha = 0.5", "beta  = 6", "TRL's beta is 0.5 at 3 tokens", "lam   = 0"):
            assert words in out

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["--trl-loss", "ipo"], "`tokens` is needed"),
            (["--recipe", "online", "--trl-beta", "1", "--objective", "ipo"], "needs --tokens"),
            (["--trl-reference", "synced"], "no point (alpha, beta, lam)"),
            (["--trl-reference", "second"], "say fixed, first, last, synced, or a fraction"),
            (["--trl-data", "mine"], "say fixed, on-policy, or a fraction"),
            (["--trl-beta", "1", "--beta", "2"], "not both"),
            (["--trl-loss", "sigmoid", "--beta", "2"], "--beta goes with"),
            (["--trl-loss", "sigmoid", "--objective", "dpo"], "not both"),
            (["--trl-data", "fixed", "--lam", "1"], "not both"),
            (["--recipe", "online", "--trl-data", "fixed"], "--trl-data goes with"),
            (["--tokens", "0"], "--tokens is 0"),
            (["--config", "absent.yaml"], "cannot be read"),
        ],
    )
    def test_mistakes_are_one_line(self, described, arguments, words):
        code, _, complained = described(*arguments)
        assert code == 2 and complained.count("\n") == 1 and words in complained


README = pathlib.Path(__file__).resolve().parents[1] / "README.md"
ROWS = README.read_text(encoding="utf-8").partition("<!-- trainer settings -->")[2].split("\n\n")[0].splitlines()[3:]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("|")[1].strip())
def test_the_readmes_table_of_trainers(row):
    _, _, settings, alpha, beta, lam, verdict, _ = (cell.strip() for cell in row.split("|"))
    recipe = recipes.from_config(json.loads(settings.strip("`")), tokens=200)
    point = {name: float(value) for name, value in recipe.point().items()}
    assert [f"{point['alpha']:.3g}", f"{point['beta']:.0f}", f"{point['lam']:.0f}"] == [alpha, beta, lam]
    # The uniform policy is fixed. IPO turns beta lam a / sqrt(3) a round; the Bradley-Terry fit of a three-cycle ties
    # all and its slope sigma'(0) = 1/4 makes it four times that.
    gain = 4 if isinstance(recipe.objective, ipodyn.DPO) else 1
    radius = np.hypot(point["alpha"], gain * 0.3 * point["beta"] * point["lam"] / np.sqrt(3))
    loop = recipe.loop(ipodyn.problems.three_cycle(0.3))
    np.testing.assert_allclose(float(ipodyn.stability(loop, np.full(3, 1 / 3)).radius), radius, rtol=1e-9)
    assert verdict.endswith("settles" if radius < 1 else "keeps turning")
    assert verdict.startswith("one round") == (recipe.rounds == 1)
    orbit = ipodyn.rollout(loop, [0.4, 0.35, 0.25], num_steps=400)
    rests = ipodyn.Regime(int(ipodyn.classify(orbit))) in (ipodyn.Regime.converges, ipodyn.Regime.collapses)
    assert rests == (radius < 1)


def test_the_readmes_table_is_there():
    assert len(ROWS) >= 7
