"""The common job: MRS-IPO rollouts over a grid of matrices, alphas and betas, and what every peer returns of them."""

import dataclasses
from typing import NamedTuple

import numpy as np


class Arrays(NamedTuple):
    """A job written out, one trajectory a column: P (K, K, n), the rest (n,), float32, C order."""

    P: np.ndarray
    alpha: np.ndarray
    beta: np.ndarray
    lam: np.ndarray


class Statistics(NamedTuple):
    """What a peer returns for every trajectory, each (n,): matrices slowest, betas fastest.

    `variance`: sum over responses of the variance over rounds 1..T. `entropy`: of the final policy, in nats.
    """

    variance: np.ndarray
    entropy: np.ndarray


@dataclasses.dataclass(frozen=True)
class Job:
    """Uniform start, reference and off-policy sampler; `P` (M, K, K), `alpha` (A,), `beta` (B,), all float32."""

    P: np.ndarray
    alpha: np.ndarray
    beta: np.ndarray
    lam: float
    num_steps: int

    @property
    def K(self) -> int:
        return self.P.shape[-1]

    @property
    def num_trajectories(self) -> int:
        return len(self.P) * self.alpha.size * self.beta.size

    @property
    def num_rounds(self) -> int:
        """Trajectory-rounds in all."""
        return self.num_trajectories * self.num_steps

    def part(self, trajectories: int) -> "Job":
        """The job on its first matrices only: about this many trajectories, at least one matrix."""
        matrices = max(1, min(len(self.P), trajectories // (self.alpha.size * self.beta.size)))
        return dataclasses.replace(self, P=self.P[:matrices])

    def arrays(self) -> Arrays:
        M, A, B = len(self.P), self.alpha.size, self.beta.size
        return Arrays(
            np.ascontiguousarray(np.repeat(np.moveaxis(self.P, 0, -1), A * B, axis=-1)),
            np.tile(np.repeat(self.alpha, B), M),
            np.tile(self.beta, M * A),
            np.full(M * A * B, self.lam, np.float32),
        )

    def certified(self) -> np.ndarray:
        """Which trajectories converge by theory: alpha + beta lam / 2 ||A||_2 < 1 makes the round a contraction.

        With a margin, so that they have converged after a few hundred rounds.
        """
        norms = np.linalg.norm(self.P.astype(np.float64) - 0.5, ord=2, axis=(1, 2))[:, None, None]
        return (self.alpha[:, None] + self.beta * self.lam / 2 * norms < 0.95).ravel()


def _skew_to_preference(upper: np.ndarray) -> np.ndarray:
    """P = 1/2 + A from the part of A above the diagonal; halves of A are exact negatives, so P + P.T = 1."""
    A = np.triu(upper.astype(np.float32), 1)
    return np.float32(0.5) + (A - np.swapaxes(A, -1, -2))


def _axis(low: float, high: float, count: int) -> np.ndarray:
    return np.linspace(low, high, count, dtype=np.float32)


def moving_job(K: int, matrices: int, num_steps: int, *, side: int = 16, seed: int = 0) -> Job:
    """Loops that never settle: noisy regular tournaments (every response beats the next (K - 1) / 2) near alpha = 1.

    Nothing converges, so that nobody can leave early and a rate is a rate of rounds.
    """
    rng = np.random.default_rng(seed)
    ahead = (np.arange(K)[None, :] - np.arange(K)[:, None]) % K
    sign = np.where(ahead <= K // 2, 1.0, -1.0)
    strength = rng.uniform(0.3, 0.45, (matrices, K, K))
    return Job(_skew_to_preference(sign * strength), _axis(0.98, 0.999, side), _axis(2, 5, side), 0.8, num_steps)


def mixed_job(K: int, matrices: int, num_steps: int, *, side: int = 8, seed: int = 1) -> Job:
    """Random matrices over the whole range of alpha and beta: most loops converge, some oscillate, some collapse."""
    upper = np.random.default_rng(seed).uniform(-0.5, 0.5, (matrices, K, K))
    return Job(_skew_to_preference(upper), _axis(0, 0.98, side), _axis(0.25, 5, side), 0.8, num_steps)


def paper_job(structure: str, K: int, matrices: int, num_steps: int, *, side: int = 20) -> Job:
    """The grid of the paper's figures on synthetic matrices, `strongly_transitive` or `cyclic`."""
    import jax

    import ipodyn

    make = getattr(ipodyn.problems, structure)
    P = np.asarray(jax.jit(jax.vmap(lambda key: make(key, K)))(jax.random.split(jax.random.key(2), matrices)))
    A = np.triu(P.astype(np.float32) - np.float32(0.5), 1)
    return Job(_skew_to_preference(A), _axis(0, 0.98, side), _axis(0.25, 5, side), 0.8, num_steps)


class Agreement(NamedTuple):
    """How far a peer is from another one, and whether that is rounding."""

    entropy: float  # largest difference where theory says that the loop converges, nats
    variance: float  # the same for the variance
    elsewhere: float  # median relative difference of the variance over all other trajectories
    agree: bool


def agreement(job: Job, one: Statistics, other: Statistics) -> Agreement:
    """Compare tightly where the loop contracts, loosely where rounding changes the phase of an oscillation.

    A contraction forgets rounding: float32 leaves a few roundings of log K in the entropy (2e-5 is generous). The
    variance is a difference of two sums over all rounds when a peer takes it about the start, as naive code does: each
    holds hundreds of roundings of numbers up to 1, so 1e-5. Elsewhere rounding errors grow round by round, but a
    variance over many turns depends little on the phase: the median within 2 %.
    """
    certified = job.certified()
    finite = all(np.isfinite(x).all() for x in (*one, *other))
    entropy, variance = (np.abs(a.astype(np.float64) - b) for a, b in ((one[1], other[1]), (one[0], other[0])))
    # Relative to at least 1e-3: smaller variances are compared by the share that rounding leaves of them.
    relative = (variance / np.maximum(one.variance, 1e-3))[~certified]
    found = (
        float(entropy[certified].max(initial=0.0)),
        float(variance[certified].max(initial=0.0)),
        float(np.median(relative)) if relative.size else 0.0,
    )
    return Agreement(*found, bool(finite and found[0] <= 2e-5 and found[1] <= 1e-5 and found[2] <= 0.02))
