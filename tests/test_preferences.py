"""Value checks: what passes passes unchanged; what fails names the culprit and a cure that works."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ipodyn

VALID = np.array([[0.5, 0.7, 0.2], [0.3, 0.5, 0.9], [0.8, 0.1, 0.5]])


def with_entries(*entries, base=VALID):
    """`base` with (index, value) pairs set."""
    P = base.copy()
    for index, value in entries:
        P[index] = value
    return P


STACK = np.stack([VALID] * 4)

BAD = {
    "vector": (np.full(3, 0.5), r"shape \(3,\): give \(K, K\), or \(M, K, K\)"),
    "not square": (np.full((2, 3), 0.5), r"shape \(2, 3\)"),
    "four axes": (np.full((1, 1, 2, 2), 0.5), r"shape \(1, 1, 2, 2\)"),
    "one response": (np.full((1, 1), 0.5), "at least 2 responses"),
    "no matrix": (np.zeros((0, 3, 3)), "holds no matrix"),
    "ragged": ([[0.5, 0.5], [0.5]], "ragged"),
    "text": ([["0.5", "high"], ["low", "0.5"]], "give real numbers"),
    "complex": (VALID.astype(complex), "complex128 values: give real numbers"),
    "nan": (with_entries(((0, 2), np.nan)), r"entry \(0, 2\) is nan: .*1/2 both ways"),
    "nan diagonal": (
        with_entries(*(((i, i), np.nan) for i in range(3))),
        r"entry \(0, 0\) is nan \(and 2 more\): set the diagonal to 1/2",
    ),
    "infinite": (with_entries(((1, 2), np.inf)), r"entry \(1, 2\) is inf"),
    "percent": (VALID * 100, r"entry \(0, 0\) is 50\.0, outside \[0, 1\] \(and 8 more\): divide percentages by 100"),
    "margins": (2 * VALID - 1, r"entry \(0, 2\) is -0\.6, outside \[0, 1\].*\(1 \+ margin\) / 2"),
    "just above one": (with_entries(((0, 1), 1 + 2**-52)), r"entry \(0, 1\) is 1\.0000000000000002, outside"),
    "diagonal": (with_entries(((1, 1), 0.0)), r"entry \(1, 1\) on the diagonal is 0\.0: .*set the diagonal to 0\.5"),
    "not complementary": (
        with_entries(((2, 0), 0.75)),
        r"entry \(0, 2\) is 0\.2 and entry \(2, 0\) is 0\.75: they must sum to 1\. .*\(P \+ 1 - P\.T\) / 2",
    ),
    "several pairs": (with_entries(((0, 1), 0.6), ((2, 0), 0.7)), r"entry \(0, 1\).*\(1 more such pairs\)"),
    "one of many": (
        with_entries(((2, 0, 1), 0.75), base=STACK),
        r"matrix 2, entry \(0, 1\) is 0\.75 and entry \(1, 0\) is 0\.3.*swapaxes\(1, 2\)",
    ),
    "nan of many": (with_entries(((3, 1, 0), np.nan), base=STACK), r"matrix 3, entry \(1, 0\) is nan"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_preferences_name_culprit_and_cure_in_one_line(case):
    P, message = BAD[case]
    with pytest.raises(ValueError, match=message) as caught:
        ipodyn.check_preference(P, name="prefs")
    assert str(caught.value).startswith("`prefs`")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, jnp.bfloat16])
def test_valid_preferences_pass_unchanged_in_their_dtype(dtype, rng):
    gaps = rng.normal(size=(50, 4)) * 3
    P = 1 / (1 + np.exp(gaps[:, None, :] - gaps[:, :, None]))
    P = P.astype(dtype)
    checked = ipodyn.check_preference(P)
    assert checked.dtype == dtype
    np.testing.assert_array_equal(checked, P)
    assert isinstance(ipodyn.check_preference(jnp.asarray(P[0])), np.ndarray)


def test_whole_numbers_become_floats():
    with pytest.raises(ValueError, match=r"entry \(0, 0\) on the diagonal is 0\.0"):
        ipodyn.check_preference(np.array([[0, 1], [0, 0]]))
    checked = ipodyn.check_unit_interval(np.array([0, 1]), "alpha")
    assert checked.dtype == np.float64


def test_tolerance_covers_float32_in_a_float64_array_and_no_more():
    P = VALID.astype(np.float32).astype(np.float64)
    assert np.abs(P + P.T - 1).max() > 1e-9  # the rounding is there
    ipodyn.check_preference(P)
    off = with_entries(((0, 1), 0.7 + 2e-6))
    with pytest.raises(ValueError, match="must sum to 1"):
        ipodyn.check_preference(off)
    with pytest.raises(ValueError, match="must sum to 1"):
        ipodyn.check_preference(off.astype(np.float32))
    ipodyn.check_preference(off, atol=1e-5)
    with pytest.raises(ValueError, match="must sum to 1"):
        ipodyn.check_preference(P, atol=0.0)


def test_the_cures_work(rng):
    one_sided = rng.uniform(size=(3, 3))
    np.fill_diagonal(one_sided, 0.5)
    with pytest.raises(ValueError, match=re.escape("P = (P + 1 - P.T) / 2")):
        ipodyn.check_preference(one_sided)
    ipodyn.check_preference((one_sided + 1 - one_sided.T) / 2)
    many = rng.uniform(size=(5, 3, 3))
    many[:, range(3), range(3)] = 0.5
    with pytest.raises(ValueError, match=re.escape("P = (P + 1 - P.swapaxes(1, 2)) / 2")):
        ipodyn.check_preference(many)
    ipodyn.check_preference((many + 1 - many.swapaxes(1, 2)) / 2)
    ipodyn.check_preference((1 + (2 * VALID - 1)) / 2)
    wins = rng.integers(1, 9, size=(3, 3))
    ipodyn.check_preference(wins / (wins + wins.T))


def test_values_of_traced_arrays_are_refused_with_a_reason():
    with pytest.raises(TypeError, match=r"`P` is traced.*outside jit"):
        jax.jit(ipodyn.check_preference)(VALID)


BAD_POLICIES = {
    "matrix": (np.full((2, 2), 0.25), r"shape \(2, 2\)"),
    "empty": (np.zeros(0), r"shape \(0,\)"),
    "too short": ([0.5, 0.5], "has 2 entries for 3 responses"),
    "nan": ([0.5, np.nan, 0.5], "entry 1 is nan"),
    "negative": ([0.5, 0.75, -0.25], "entry 2 is -0.25, negative.*softmax"),
    "sum": ([0.5, 0.25, 0.5], "sums to 1.25: it must sum to 1. Divide it by its sum"),
    "all zero": ([0.0, 0.0, 0.0], "sums to 0: .*positive probability"),
}


@pytest.mark.parametrize("case", BAD_POLICIES)
def test_bad_policies_name_culprit_and_cure_in_one_line(case):
    policy, message = BAD_POLICIES[case]
    with pytest.raises(ValueError, match=message) as caught:
        ipodyn.check_policy(policy, 3, name="pi_ref")
    assert str(caught.value).startswith("`pi_ref`")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_valid_policies_pass_unchanged(dtype, rng):
    policy = rng.dirichlet(np.ones(200)).astype(dtype)
    checked = ipodyn.check_policy(policy)
    assert checked.dtype == dtype
    np.testing.assert_array_equal(checked, policy)
    ipodyn.check_policy([1, 0, 0], 3)


@pytest.mark.parametrize("value", [-1e-9, 1 + 1e-9, np.nan, np.inf])
@pytest.mark.parametrize("check", [ipodyn.check_alpha, ipodyn.check_lam], ids=lambda check: check.__name__)
def test_unit_interval_refuses(check, value):
    with pytest.raises(ValueError, match=rf"is {re.escape(str(value))}, outside \[0, 1\]: 0 "):
        check(value)
    with pytest.raises(ValueError, match=rf"entry \(1, 0\) is {re.escape(str(value))}"):
        check(np.array([[0.0, 1.0], [value, 0.5]]))


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf])
def test_beta_must_be_positive_and_finite(value):
    with pytest.raises(ValueError, match=rf"`beta` is {re.escape(str(value))}, not in \(0, inf\): it is 1 / the KL"):
        ipodyn.check_beta(value)
    with pytest.raises(ValueError, match=rf"`betas` entry 1 is {re.escape(str(value))}, not .*\(and 1 more\)"):
        ipodyn.check_beta([1.0, value, value], name="betas")


def test_parameters_in_range_pass_unchanged():
    assert ipodyn.check_alpha(0).item() == 0.0
    assert ipodyn.check_lam(1.0).item() == 1.0
    betas = np.array([1e-300, 1.0, 1e300])
    np.testing.assert_array_equal(ipodyn.check_beta(betas), betas)
    assert ipodyn.check_positive(np.float32(2.0), "x").dtype == np.float32
    with pytest.raises(ValueError, match="`beta` holds <U5 values"):
        ipodyn.check_beta("large")
