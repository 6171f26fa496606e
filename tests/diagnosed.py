"""Prompts to diagnose, and what the functions called one by one say of them."""

import functools
import math
from typing import Any

import jax
import numpy as np
import scipy.optimize

import ipodyn
from ipodyn._diagnosis.prompts import Shared

ALPHA, BETA, LAM = 0.9, 5.0, 0.8
K = 3  # one size and at most 32 prompts throughout: what compiles once serves every test


@functools.cache
def matrices():
    """Cycles of growing strength, some with a tilt, and Bradley-Terry matrices."""
    rng = np.random.default_rng(0)
    cycles = [np.asarray(ipodyn.problems.three_cycle(strength)) for strength in np.linspace(0.02, 0.45, 16)]
    tilt = np.triu(rng.uniform(-0.04, 0.04, (16, K, K)), 1)
    scores = rng.normal(size=(8, K))
    transitive = 1 / (1 + np.exp(scores[:, None] - scores[:, :, None]))
    return np.concatenate([cycles + tilt - tilt.swapaxes(1, 2), transitive])


@functools.cache
def found():
    """Their diagnosis, each pair compared 50 times."""
    return ipodyn.diagnose(matrices(), alpha=ALPHA, beta=BETA, lam=LAM, counts=np.full(matrices().shape, 50))


@jax.jit
def _directly(P, alpha, beta, lam):
    loop = ipodyn.MRS(P, alpha=alpha, beta=beta, lam=lam)
    star = ipodyn.fixed_point(loop)
    s = ipodyn.stability(loop, star.policy)
    return {
        "policy": star.policy,
        "entropy": ipodyn.entropy(star.policy),
        "drift": ipodyn.kl_divergence(star.policy, loop.pi_ref),
        "radius": s.radius,
        "omega": s.omega,
        "period": s.period,
        "stable": s.stable,
    }


def directly(P, name, alpha=ALPHA, beta=BETA, lam=LAM):
    """What the functions called one by one say of each matrix."""
    return np.array([_directly(p, alpha, beta, lam)[name] for p in np.reshape(P, (-1, K, K))])


def radius(P, **changed):
    return directly(P, "radius", **changed)


def cycle_of_radius(radius, alpha=ALPHA, beta=BETA, lam=LAM):
    """The three-cycle whose uniform fixed point has that radius: alpha^2 + (a beta lam)^2 / 3 = radius^2."""
    return np.asarray(ipodyn.problems.three_cycle(math.sqrt(3 * (radius**2 - alpha**2)) / (beta * lam)))


def favourite(edge):
    """Response 0 beats both others by `edge`, which tie: linear utility, P_ij - 1/2 = s_i - s_j, s = (edge, 0, 0).

    Its scores are the same for every sampling, so that the fixed point is softmax(kappa s), kappa = beta / (1 - alpha),
    and the radius alpha: nothing turns.
    """
    s = np.array([edge, 0, 0])
    return 0.5 + s[:, None] - s[None]


def favourite_of_entropy(entropy, alpha=ALPHA, beta=BETA):
    """The same by the entropy of its fixed point (1 - q, q / 2, q / 2)."""

    def excess(q):
        return -(1 - q) * math.log(1 - q) - q * math.log(q / 2) - entropy

    q: Any = scipy.optimize.brentq(excess, 1e-12, 2 / 3)
    return favourite((1 - alpha) / beta * math.log(2 * (1 - q) / q))


def settled(a, count):
    return [np.asarray(ipodyn.problems.three_cycle(a))] * count


def shared(alpha=ALPHA, beta=BETA, lam=LAM, K=K):
    uniform = np.full(K, 1 / K)
    return Shared(np.array(alpha), np.array(beta), np.array(lam), uniform, uniform, ipodyn.IPO())
