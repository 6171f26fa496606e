"""One way to call: the same argument stands at the same place, under the same name, in every public signature."""

import dataclasses
import inspect
import re
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ipodyn
from ipodyn._numerics.randomness import host_generator, key_words, random_key

# Old spellings are called on purpose.
# pyright: reportCallIssue=false, reportArgumentType=false, reportAttributeAccessIssue=false

MODULES = (ipodyn, ipodyn.problems, ipodyn.recipes, ipodyn.data, ipodyn.plot)


def signatures():
    """name -> parameters, for public functions, constructors and methods."""
    found = {}
    for module in MODULES:
        for name, value in vars(module).items():
            if name.startswith("_") or not callable(value) or not (value.__module__ or "").startswith("ipodyn"):
                continue
            short = f"{module.__name__}.{name}".removeprefix("ipodyn.")
            methods = {}
            if inspect.isclass(value):
                own = [base for base in value.__mro__ if base.__module__.startswith("ipodyn")]
                methods = {
                    f"{short}.{method}": function
                    for base in own
                    for method, function in vars(base).items()
                    if inspect.isfunction(function) and not method.startswith("_")
                }
            for key, function in {short: value, **methods}.items():
                try:
                    found[key] = list(inspect.signature(function).parameters.values())
                except ValueError:  # an exception or an enumeration, which take what their base takes
                    assert issubclass(value, Exception)
    return found


SIGNATURES = signatures()
POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def places(name):
    """(function, place of the parameter of this name or None where it is given by name alone, all parameters)."""
    for function, parameters in SIGNATURES.items():
        own = [parameter for parameter in parameters if parameter.name != "self"]
        for place, parameter in enumerate(own):
            if parameter.name == name:
                yield function, place if parameter.kind in POSITIONAL else None, own


def test_signatures_are_read():
    assert len(SIGNATURES) > 100 and {"rollout", "data.load_pairs", "Orbit", "FiniteOrbit.across"} <= set(SIGNATURES)
    assert [function for function, *_ in places("policy0")].count("rollout") == 1


def test_a_start_is_second_or_given_by_name():
    for function, place, parameters in places("policy0"):
        allowed = (1,) if parameters[0].name in ("loop", "loops") else (None,)
        if "." in function:  # a method of a result, which knows its loop
            allowed = (0, None)
        assert place in allowed, function


def test_parameters_of_a_loop_are_given_by_name():
    results = {name for name, value in vars(ipodyn).items() if inspect.isclass(value)} - {"MRS"}  # built by the library
    for name in ("alpha", "beta", "lam"):
        wrong = {
            function
            for function, place, _ in places(name)
            if place is not None
            and function.split(".")[0] not in results | {"recipes"}
            and function != f"check_{name}"
            and not function.endswith("pair_losses")
        }
        assert not wrong, name


def test_an_objective_is_first_or_given_by_name():
    """First where it alone says what is computed; by name where a loop or a map is described."""
    for function, place, parameters in places("objective"):
        of_loops = {"alpha", "loop", "loops", "orbit", "eta"} & {parameter.name for parameter in parameters}
        if of_loops or function.startswith("recipes."):
            assert place is None or function.split(".")[-1][0].isupper(), function  # fields of results are in any order
        elif "." not in function:
            assert place == 0 and parameters[0].default is inspect.Parameter.empty, function


def test_randomness_comes_from_a_key():
    """A `key`, first where random things are made, else by name or behind the loop; no seeds, no generators."""
    for function, place, parameters in places("key"):
        starts = any(parameter.name == "policy0" for parameter in parameters)  # whose place is second
        assert place in ((0, None) if starts else (0, 1, None)), function
    for name in ("seed", "rng", "generator", "random_state"):
        assert not list(places(name)), name


def test_what_is_kept_of_each_round_is_called_save():
    for name in ("paths", "save_paths", "keep_paths", "trajectory", "history"):
        wrong = [function for function, _, own in places(name) if function != "variance_of_average"]  # its data
        assert not wrong, name
    assert {function for function, *_ in places("save")} >= {"rollout", "finite_rollout", "finite_sweep"}


def test_value_is_that_of_the_parameter_that_was_searched_for():
    """A result has a `value` only where the answer is one number: the critical one, the largest safe, the smallest."""
    results = {name: value for name, value in vars(ipodyn).items() if dataclasses.is_dataclass(value)}
    having = {name for name, value in results.items() if "value" in {field.name for field in dataclasses.fields(value)}}
    assert having == {"Critical", "Damping", "SafeRegion", "SmallestSample"}


# Old spellings, each beside the new one; both give the same numbers.
LOOP = ipodyn.MRS(ipodyn.problems.three_cycle(0.4), alpha=0.5, beta=1.0, lam=1.0)
KEY = jax.random.key(3)
MATRICES = np.broadcast_to(ipodyn.problems.two_responses(0.9), (3, 2, 2))
START = [0.5, 0.3, 0.2]
P = np.asarray(ipodyn.problems.bradley_terry(np.array([0.6, 0.1, 0.0])))
CYCLES = np.stack([np.asarray(ipodyn.problems.three_cycle(strength)) for strength in (0.2, 0.4)])
MU, UNIFORM = np.array(START), np.full(3, 1 / 3)


def tuned():
    return ipodyn.tune(lambda loop, policy: policy[0], MATRICES[0], alpha=0.2, beta=1.0, lam=0.5, num_steps=1)


DRAWS = {"num_pairs": 20, "num_steps": 4}
SWEEP = DRAWS | {"num_trajectories": 2}
OLD = {
    "finite_rollout": (
        lambda: ipodyn.finite_rollout(LOOP, KEY, START, paths=True, **DRAWS),
        lambda: ipodyn.finite_rollout(LOOP, START, key=KEY, save=jnp.asarray, **DRAWS),
        [r"`key` as argument 2 of finite_rollout\(\) .* use `key=", "`paths` .* use `save`"],
    ),
    "finite_rollout, a key of the old kind": (
        lambda: ipodyn.finite_rollout(LOOP, jax.random.PRNGKey(3), save=jnp.asarray, **DRAWS),
        lambda: ipodyn.finite_rollout(LOOP, key=3, save=jnp.asarray, **DRAWS),
        ["use `key="],
    ),
    "finite_sweep": (
        lambda: ipodyn.finite_sweep(LOOP, KEY, START, paths=True, **SWEEP),
        lambda: ipodyn.finite_sweep(LOOP, START, key=KEY, save=jnp.asarray, **SWEEP),
        [r"`key` as argument 2 of finite_sweep\(\)", "`paths` .* use `save`"],
    ),
    "smallest_sample": (
        lambda: ipodyn.smallest_sample(LOOP, LOOP, KEY, **SWEEP | {"num_pairs": [20]}),
        lambda: ipodyn.smallest_sample(LOOP, LOOP, key=KEY, **SWEEP | {"num_pairs": [20]}),
        ["`key` as argument 3"],
    ),
    "sequential_runs": (
        lambda: ipodyn.sequential_runs(MATRICES, rng=np.random.default_rng(5)),
        lambda: ipodyn.sequential_runs(MATRICES, key=5),
        ["`rng` .* use `key`"],
    ),
    "concentration": (
        lambda: (path := ipodyn.concentration(P, MU, UNIFORM, num=2, objective=ipodyn.DPO())).gap + path.share[:, None],
        lambda: (path := ipodyn.concentration(ipodyn.DPO(), P, MU, UNIFORM, num=2)).gap + path.weight[:, None],
        [r"concentration\(\) without `objective` .* use `concentration\(objective, ...\)`", "`Concentration.weight`"],
    ),
    "witness": (
        lambda: (ipodyn.witness(MU, share=0.3), ipodyn.witness(MU, "order", objective=ipodyn.DPO())),
        lambda: (ipodyn.witness(ipodyn.IPO(), MU, fraction=0.3), ipodyn.witness(ipodyn.DPO(), MU, "order")),
        [r"witness\(\) without `objective`", r"use `witness\(objective, ...\)`", "`share` .* use `fraction`"],
    ),
    "most_violating": (
        lambda: ipodyn.most_violating(MU, P, P),
        lambda: ipodyn.most_violating(ipodyn.IPO(), MU, P, P),
        [r"most_violating\(\) without `objective`"],
    ),
    "safe_region": (
        lambda: ipodyn.safe_region(CYCLES, alpha=0.5, lam=1.0, share=0.5).share,
        lambda: ipodyn.safe_region(CYCLES, alpha=0.5, lam=1.0, fraction=0.5).fraction,
        ["`share` .* use `fraction`", "use `SafeRegion.fraction`"],
    ),
    "tune": (
        lambda: tuned().value,
        lambda: tuned().functional_value,
        ["use `Tuned.functional_value`"],
    ),
    "sparsest_sampler": (
        lambda: ipodyn.sparsest_sampler(P, share=0.4),
        lambda: ipodyn.sparsest_sampler(P, fraction=0.4),
        ["`share` .* use `fraction`"],
    ),
    "closest_sampler": (
        lambda: ipodyn.closest_sampler(P, share=0.4),
        lambda: ipodyn.closest_sampler(P, fraction=0.4),
        ["`share` .* use `fraction`"],
    ),
    "hodge_split": (
        lambda: (split := ipodyn.hodge_split(CYCLES[0])).share + split.cyclic_share,
        lambda: (split := ipodyn.hodge_split(CYCLES[0])).fraction + split.cyclic_fraction,
        ["use `HodgeSplit.fraction`", "use `HodgeSplit.cyclic_fraction`"],
    ),
    "diagnose": (
        lambda: ipodyn.diagnose(CYCLES, alpha=0.5, beta=1.0, lam=0.5, seed=2).recommendation.share,
        lambda: ipodyn.diagnose(CYCLES, alpha=0.5, beta=1.0, lam=0.5, key=2).recommendation.fraction,
        ["`seed` .* use `key`", "use `Recommendation.fraction`"],
    ),
    "synthetic_ratings": (
        lambda: ipodyn.data.synthetic_ratings(seed=3, num_prompts=2),
        lambda: ipodyn.data.synthetic_ratings(3, 2),
        ["`seed` .* use `key`"],
    ),
    "RegimeThresholds": (
        lambda: ipodyn.RegimeThresholds(collapse_share=0.1, drift_share=2.0).collapse_share,
        lambda: ipodyn.RegimeThresholds(collapse_fraction=0.1, drift_ratio=2.0).collapse_fraction,
        ["`collapse_share` .* use `collapse_fraction`", "`drift_share` .* use `drift_ratio`", "use `RegimeThresholds"],
    ),
}


@pytest.mark.parametrize("name", OLD)
def test_old_spellings_warn_and_do_the_same(name):
    old, new, says = OLD[name]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        before = old()
    assert len(caught) == len(says) and {warning.category for warning in caught} == {DeprecationWarning}
    for words in says:
        assert any(re.search(words, str(warning.message)) for warning in caught), words
    after = new()  # warnings are errors here
    assert jax.tree.structure(before) == jax.tree.structure(after)
    jax.tree.map(np.testing.assert_array_equal, before, after)


def test_what_is_saved_is_what_the_function_gives_of_each_policy():
    """In a sweep, whose blocks hold the policies of many trajectories, as in a single rollout."""

    def top(policy):
        return {"best": jnp.argmax(policy), "mass": policy[:2].sum()}

    swept = ipodyn.finite_sweep(LOOP, START, key=KEY, save=top, size=1, **SWEEP)
    paths = ipodyn.finite_sweep(LOOP, START, key=KEY, save=jnp.asarray, **SWEEP).saved
    assert paths.shape == (2, 4, 3)
    np.testing.assert_array_equal(swept.saved["best"], paths.argmax(axis=-1))
    np.testing.assert_allclose(swept.saved["mass"], paths[..., :2].sum(axis=-1), rtol=1e-12)


def test_a_key_is_a_number_or_what_jax_makes_of_it():
    """Both kinds of JAX keys and their number mean the same draws in JAX; on the host a key has a stream of its own."""
    for key in (3, jax.random.PRNGKey(3)):
        np.testing.assert_array_equal(jax.random.key_data(random_key(key)), jax.random.key_data(KEY))
    draws = {words: host_generator(key).integers(2**60) for words, key in (("3", 3), ("4", 4), ("0-3", KEY))}
    assert len(set(draws.values())) == 3 and draws["3"] == np.random.default_rng(3).integers(2**60)
    assert draws["0-3"] == host_generator(jax.random.PRNGKey(3)).integers(2**60)
    assert [key_words(key) for key in (3, KEY)] == ["3", "0-3"]
    made = ipodyn.data.synthetic_helpsteer(KEY, num_prompts=2)
    assert made.source.endswith("seed 0-3") and np.array_equal(
        made.P, ipodyn.data.synthetic_helpsteer(KEY, num_prompts=2).P
    )
