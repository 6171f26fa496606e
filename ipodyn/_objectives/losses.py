"""Losses beside the population loss of an objective: of sampled pairs, and the two other forms of IPO's."""

from typing import Any

import jax
import jax.numpy as jnp

from .._numerics.simplex import kl_divergence, log_policy
from .._numerics.types import Logits, PolicyLike, PreferenceLike, Scalar, ScalarLike, as_float
from .objective import AbstractObjective, log_ratio, prepare


def pair_loss(
    objective: AbstractObjective,
    logits: PolicyLike,
    winners: Any,
    losers: Any,
    pi_ref: PolicyLike,
    *,
    beta: ScalarLike = 1.0,
) -> Scalar:
    r"""Mean loss of labelled pairs, as an RLHF trainer computes it from sampled data.

    IPO: mean of \((h_w - h_l - \beta/2)^2\); DPO: mean of \(-\log\sigma((h_w - h_l)/\beta)\), with
    h = log softmax(logits) - log pi_ref. Equal to what TRL's `DPOTrainer` computes with `beta=1/beta` and
    `loss_type="ipo"` or `"sigmoid"` when every response is one token (TRL averages IPO's log-probabilities over
    the tokens of a response).

    - `logits`, `pi_ref`: shape (K,). - `winners`, `losers`: shape (n,), integer indices of responses.

    Source: Azar et al., arXiv 2310.12036, section on IPO; Rafailov et al., arXiv 2305.18290, section on the DPO
    objective.

    >>> import ipodyn, jax.numpy as jnp
    >>> half = jnp.full(2, 0.5)
    >>> float(ipodyn.pair_loss(ipodyn.IPO(), jnp.zeros(2), jnp.array([0]), jnp.array([1]), half, beta=2.0))
    1.0
    """
    logits = as_float(logits)
    h = jax.nn.log_softmax(logits) - log_policy(as_float(pi_ref, logits))
    margin = h[jnp.asarray(winners)] - h[jnp.asarray(losers)]
    return jnp.mean(objective.pair_losses(margin, jnp.broadcast_to(as_float(beta, logits), margin.shape)))


def ipo_game_value(
    logits: PolicyLike, P: PreferenceLike, mu: PolicyLike, pi_ref: PolicyLike, *, beta: ScalarLike = 1.0
) -> Scalar:
    r"""The game form of IPO, to be maximised: \(\pi^\top P\mu - \mathrm{KL}(\pi\,\|\,\pi_{ref})/\beta\).

    Its maximiser is `IPO().optimum`. With v = h - beta P mu its gradient in the logits is -S(pi) v / beta, that of the
    two losses 4 S(mu) v: on-policy, mu = pi, they agree up to the factor -4 beta.

    Source: Azar et al., arXiv 2310.12036, section on IPO; Chen et al., arXiv 2602.12180, section on one-shot optima.
    The comparison of the gradients is derived here.

    >>> import ipodyn, jax.numpy as jnp
    >>> half = jnp.full(2, 0.5)
    >>> float(ipodyn.ipo_game_value(jnp.zeros(2), jnp.full((2, 2), 0.5), half, half, beta=1.0))
    0.5
    """
    P, logits, mu, pi_ref = prepare(P, logits, mu, pi_ref)
    policy: Logits = jax.nn.softmax(logits)
    return policy @ (P @ mu) - kl_divergence(policy, pi_ref) / as_float(beta, P)


def ipo_regression_loss(
    logits: PolicyLike, P: PreferenceLike, mu: PolicyLike, pi_ref: PolicyLike, *, beta: ScalarLike = 1.0
) -> Scalar:
    r"""The regression form of IPO: \(\sum_{ij}\mu_i\mu_j(h_i - h_j - \beta(P_{ij} - \tfrac12))^2\).

    Differs from `IPO().loss` (the sampled form) by a constant that does not depend on the logits.

    Source: Azar et al., arXiv 2310.12036, section on IPO.

    >>> import ipodyn, jax.numpy as jnp
    >>> half = jnp.full(2, 0.5)
    >>> float(ipodyn.ipo_regression_loss(jnp.zeros(2), jnp.full((2, 2), 0.5), half, half, beta=1.0))
    0.0
    """
    P, logits, mu, pi_ref = prepare(P, logits, mu, pi_ref)
    h, weights = log_ratio(logits, pi_ref, mu)
    miss = h[:, None] - h[None, :] - as_float(beta, P) * (P - 0.5)
    return jnp.sum(weights * miss**2)
