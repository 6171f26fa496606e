r"""`python -m benchmarks.attacks.fixed_points`: is the error that a fixed point reports a bound?

Random loops, as nasty as valid input can be, against a reference in extended precision that shares nothing with the
library. A fixed point of MRS-IPO solves 0 = m(w) = (1 - alpha)(log pi_ref - w) + beta P mu, modulo constants. With pi*
the solution, w = log pi and x the miss m / (1 - alpha), skewness of P - 1/2 gives
KL(pi || pi*) + KL(pi* || pi) = -<x, pi - pi*>, hence |pi - pi*|_1 <= (max x - min x) / 2: whatever finds the reference,
its miss certifies it. The miss is evaluated with twice the digits of extended precision.
"""

import argparse
import time
from typing import Any, NamedTuple

import numpy as np

Long = np.longdouble
KINDS = ("random", "cyclic", "sure", "near ties", "eighths")
LANES = 4000  # of one call
UNSURE = 1e-13  # a reference less certain than this is no reference


class Loops(NamedTuple):
    """M loops: P (M, K, K), alpha, beta, lam (M,), pi_ref, pi_0 (M, K), in the dtype under attack."""

    P: np.ndarray
    alpha: np.ndarray
    beta: np.ndarray
    lam: np.ndarray
    pi_ref: np.ndarray
    pi_0: np.ndarray

    def at(self, index: Any) -> "Loops":
        return Loops(*(x[index] for x in self))


def _matrices(rng: np.random.Generator, M: int, K: int) -> np.ndarray:
    """A fifth each: uniform, cyclic on a circle, 0 and 1, wins by 1e-9 to 1e-2, eighths."""
    gap = (np.arange(K)[None, :] - np.arange(K)[:, None]) % K
    circle = np.where(gap == 0, 0.0, np.where(2 * gap < K, 1.0, np.where(2 * gap > K, -1.0, 0.0)))
    made = [
        rng.uniform(0, 1, (M, K, K)),
        0.5 + 0.5 * rng.uniform(0, 1, (M, K, K)) * circle,
        rng.integers(0, 2, (M, K, K)).astype(float),
        0.5 + rng.choice([-1, 1], (M, K, K)) * 10 ** rng.uniform(-9, -2, (M, 1, 1)),
        rng.integers(0, 9, (M, K, K)) / 8,
    ]
    return np.stack(made)[rng.integers(0, len(made), M), np.arange(M)]


def _policies(rng: np.random.Generator, M: int, K: int, least: float) -> np.ndarray:
    """A quarter each: uniform, Dirichlet, down to 1e-30 (a tenth of these: below the normal numbers), exact zeros."""
    flat = np.full((M, K), 1 / K)
    spread = rng.dirichlet(np.ones(K), M)
    skewed = np.exp(rng.uniform(np.log(1e-30), 0, (M, K)))
    skewed = np.where((rng.uniform(size=(M, 1)) < 0.1) & (rng.uniform(size=(M, K)) < 0.5), least, skewed)
    zeros = np.where(rng.uniform(size=(M, K)) < 0.4, 0.0, spread)
    zeros[np.arange(M), rng.integers(0, K, M)] = 0.5
    made = np.stack([flat, spread, skewed, zeros])[rng.integers(0, 4, M), np.arange(M)]
    made[np.arange(M), made.argmax(1)] += (made.max(1) < 1e-3) * 1.0
    return made / made.sum(1, keepdims=True)


def draw(rng: np.random.Generator, M: int, K: int, dtype: str) -> Loops:
    """Loops with alpha up to 0.99999, beta from 0.1 to 1e6, lam in [0, 1] with its ends, in every combination."""
    upper = np.triu(_matrices(rng, M, K), 1).astype(dtype)
    below = np.swapaxes(np.triu(1 - upper, 1), 1, 2)
    P = (upper + below + np.eye(K) / 2).astype(dtype)
    near = rng.uniform(size=M) < 0.5
    alpha = np.where(near, 1 - 10 ** rng.uniform(-5, 0, M), rng.uniform(0, 1, M) * 0.99)
    beta = 10 ** rng.uniform(-1, rng.choice([2, 4, 6], M))
    lam = np.where(rng.uniform(size=M) < 0.3, rng.integers(0, 2, M), rng.uniform(0, 1, M))
    least = float(np.finfo(dtype).tiny) * 1e-3
    pi_ref, pi_0 = (_policies(rng, M, K, least).astype(dtype) for _ in range(2))
    return Loops(P, np.minimum(alpha, 0.99999).astype(dtype), beta.astype(dtype), lam.astype(dtype), pi_ref, pi_0)


# --- twice the digits of extended precision: unevaluated sums of two numbers


def _two_sum(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    s = a + b
    t = s - a
    return s, (a - (s - t)) + (b - t)


def _two_product(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    def halves(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        big = x * Long(2**32 + 1)
        high = big - (big - x)
        return high, x - high

    p = a * b
    (ah, al), (bh, bl) = halves(a), halves(b)
    return p, ((ah * bh - p) + ah * bl + al * bh) + al * bl


def _add(x: tuple, y: tuple) -> tuple:
    s, e = _two_sum(x[0], y[0])
    return _two_sum(s, e + x[1] + y[1])


def _times(x: tuple, y: tuple) -> tuple:
    p, e = _two_product(x[0], y[0])
    return _two_sum(p, e + x[0] * y[1] + x[1] * y[0])


def _reciprocal(x: tuple) -> tuple:
    guess = (1 / x[0], np.zeros_like(x[0]))
    product = _times(x, guess)
    return _times(guess, _add((2 * np.ones_like(x[0]), guess[1]), (-product[0], -product[1])))


def _miss(loops: Loops, log_ref: np.ndarray, w: np.ndarray, pi: np.ndarray) -> np.ndarray:
    """log pi_ref - w + kappa P mu, less its mean under pi; in mu, pi is divided by its exact sum."""
    one, zero = np.ones_like(loops.alpha), np.zeros_like(loops.alpha)
    K = pi.shape[1]
    total = (pi[:, 0], zero)
    for j in range(1, K):
        total = _add(total, (pi[:, j], zero))
    on, off = _times((loops.lam, zero), _reciprocal(total)), _two_sum(one, -loops.lam)
    kappa = _times((loops.beta, zero), _reciprocal(_two_sum(one, -loops.alpha)))
    mu = [_add(_times(on, (pi[:, j], zero)), _times(off, (loops.pi_0[:, j], zero))) for j in range(K)]
    rows = []
    for i in range(K):
        score = (zero, zero)
        for j in range(K):
            score = _add(score, _times((loops.P[:, i, j], zero), mu[j]))
        rows.append(_add(_times(kappa, score), _two_sum(log_ref[:, i], -w[:, i])))
    high, low = (np.stack([row[part] for row in rows], 1) for part in (0, 1))
    high, error = _two_sum(high, -np.sum(pi * high, 1, keepdims=True))
    miss = high + (error + low)
    return miss - np.sum(pi * miss, 1, keepdims=True)


# --- the reference


def _softmax(w: np.ndarray) -> np.ndarray:
    weights = np.exp(w - w.max(1, keepdims=True))
    return weights / weights.sum(1, keepdims=True)


def _eliminate(matrix: np.ndarray, rhs: np.ndarray) -> np.ndarray:
    """`matrix @ x = rhs` for (M, K, K) and (M, K, n), without pivoting: similar to positive definite matrices."""
    matrix, rhs = matrix.copy(), rhs.copy()
    K = rhs.shape[1]
    for k in range(K):
        rhs[:, k] /= matrix[:, k, k][:, None]
        matrix[:, k, k:] /= matrix[:, k, k][:, None]
        for i in range(K):
            if i != k:
                rhs[:, i] -= matrix[:, i, k][:, None] * rhs[:, k]
                matrix[:, i, k:] -= matrix[:, i, k][:, None] * matrix[:, k, k:]
    return rhs


def _newton(loops: Loops, kappa: np.ndarray, pi: np.ndarray, rhs: np.ndarray) -> np.ndarray:
    """(1 - kappa lam (P - 1 pi' P) S(pi)) x = rhs, centred by pi; rhs (M, K, n)."""
    A = loops.P - Long(0.5)
    on = np.einsum("mij,mj->mi", A, pi)
    slope = (A - on[:, :, None] - np.einsum("mi,mij->mj", pi, A)[:, None, :]) * pi[:, None, :]
    x = _eliminate(np.eye(pi.shape[1], dtype=Long) - (kappa * loops.lam)[:, None, None] * slope, rhs)
    return x - np.einsum("mi,min->mn", pi, x)[:, None, :]


class Reference(NamedTuple):
    """Policies (M, K) and how far they may be off (M,), inf where none was found."""

    policy: np.ndarray
    radius: np.ndarray


def _topped(w: np.ndarray) -> np.ndarray:
    return w - w.max(1, keepdims=True)


def _rise(w: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The longest step: rare responses may fall freely, and rise to -3."""
    size = np.sqrt(np.sum(_softmax(w) * x**2, 1))
    return np.maximum(size, (x / np.maximum(1, -3 - _topped(w))).max(1))


def _polish(loops: Loops, log_ref: np.ndarray, w: np.ndarray, steps: int) -> Reference:
    """Newton at full signal from w, and what the last step, not taken, would still change."""
    kappa, inside = loops.beta / (1 - loops.alpha), loops.pi_ref > 0
    for step in range(steps + 1):
        pi = _softmax(w)
        x = _newton(loops, kappa, pi, _miss(loops, log_ref, w, pi)[:, :, None])[:, :, 0]
        x = np.where(inside, x, 0)
        if step < steps:
            w = w + np.minimum(1, 1 / np.maximum(_rise(w, x), Long(1e-30)))[:, None] * x
            w = np.where(inside, _topped(w), log_ref)
    # Curvature: sum of pi exp(max(x, 0)) x^2, in logarithms because a rare response may be on its way up.
    log_pi = _topped(w) - np.log(np.sum(np.exp(_topped(w)), 1, keepdims=True))
    curved = np.sum(np.exp(np.minimum(log_pi + np.maximum(x, 0), 20)) * x**2, 1)
    radius = 2 * np.max(pi * np.abs(x), 1) + 4 * (1 + kappa) * curved + 1e-18
    return Reference(pi, np.where(np.isfinite(radius), radius, np.inf))


def _homotopy(loops: Loops, log_ref: np.ndarray, steps: int = 2000) -> np.ndarray:
    """Logits at full signal, followed from zero signal in short steps, each corrected."""
    kappa, inside = loops.beta / (1 - loops.alpha), loops.pi_ref > 0
    off = (1 - loops.lam)[:, None] * loops.pi_0
    w, share = np.where(inside, _topped(log_ref), log_ref), np.zeros(len(kappa), Long)
    for _ in range(steps):
        pi = _softmax(w)
        pull = kappa[:, None] * np.einsum("mij,mj->mi", loops.P - Long(0.5), loops.lam[:, None] * pi + off)
        rhs = np.stack([log_ref - w + share[:, None] * pull, pull], 2)
        rhs = np.where(inside[:, :, None], rhs - np.einsum("mi,min->mn", pi, rhs)[:, None, :], 0)
        x, along = np.moveaxis(np.where(inside[:, :, None], _newton(loops, share * kappa, pi, rhs), 0), 2, 0)
        length, slope = _rise(w, x), np.maximum(_rise(w, along), Long(1e-30))
        on = np.where(length < 0.2, np.minimum(0.3 / slope, 1 - share), 0)
        w = w + np.minimum(1, 0.5 / np.maximum(length, Long(1e-30)))[:, None] * x + on[:, None] * along
        w, share = np.where(inside, _topped(w), log_ref), share + on
        if np.all((share == 1) & (length < 1e-3)):
            break
    return w


def reference(loops: Loops, guess: np.ndarray) -> Reference:
    """Fixed points in extended precision. `guess` (M, K) may be anything: it saves time, the miss is what counts."""
    inside = loops.pi_ref > 0
    wide = Loops(*(x.astype(Long) for x in loops))
    log_ref = np.where(inside, np.log(np.where(inside, wide.pi_ref, 1)), Long(-1e15))
    guess = guess.astype(Long)
    w = np.where(inside, np.log(np.maximum(guess, Long(1e-30))), log_ref)
    found = _polish(wide, log_ref, w, 2)
    for steps in (6, 40, None):
        bad = np.flatnonzero(~(found.radius <= UNSURE))
        if bad.size == 0:
            break
        part = wide.at(bad)
        start = w[bad] if steps else _homotopy(part, log_ref[bad])
        again = _polish(part, log_ref[bad], start, steps or 8)
        for old, new in zip(found, again, strict=True):
            old[bad] = new
    return found


# --- the attack


def solved(loops: Loops, dtype: str) -> tuple[np.ndarray, ...]:
    """Policy, reported error, success and steps of the library, in one batch of fixed shape."""
    import jax

    with jax.enable_x64(dtype == "float64"):
        return tuple(np.asarray(x) for x in _program()(*loops))


def _program() -> Any:
    global _COMPILED
    if _COMPILED is None:
        import jax

        import ipodyn

        @jax.jit
        @jax.vmap
        def run(P, alpha, beta, lam, pi_ref, pi_0):
            loop = ipodyn.MRS(P, alpha=alpha, beta=beta, lam=lam, pi_ref=pi_ref, pi_0=pi_0)
            found = ipodyn.fixed_point(loop, throw=False)
            return found.policy, found.error, found.result == ipodyn.RESULTS.successful, found.num_steps

        _COMPILED = run
    return _COMPILED


_COMPILED: Any = None


class Attack(NamedTuple):
    """What one batch gave: all (M,); `excess` is the true error less the reported one and the reference's own."""

    kappa: np.ndarray
    lam: np.ndarray
    successful: np.ndarray
    known: np.ndarray
    error: np.ndarray
    excess: np.ndarray
    off: np.ndarray
    steps: np.ndarray


def attack(rng: np.random.Generator, M: int, K: int, dtype: str) -> tuple[Loops, Attack]:
    loops = draw(rng, M, K, dtype)
    policy, error, successful, steps = solved(loops, dtype)
    true = reference(loops, policy)
    off = np.max(np.abs(policy - true.policy), 1)
    kappa = loops.beta.astype(float) / (1 - loops.alpha.astype(float))
    known = true.radius <= UNSURE
    excess = off - error.astype(Long) - true.radius
    return loops, Attack(kappa, loops.lam, successful, known, error, excess, off, steps)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.attacks.fixed_points", description=__doc__)
    parser.add_argument("--count", type=int, default=100_000, help="fixed points")
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float32")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    start, parts, worst = time.perf_counter(), [], []
    sizes = list(range(2, 17))
    for batch in range(-(-arguments.count // LANES)):
        K = sizes[batch % len(sizes)]
        loops, found = attack(rng, LANES, K, arguments.dtype)
        parts.append(found)
        wrong = np.flatnonzero(found.successful & found.known & (found.excess > 0))
        worst += [(K, loops.at(i), float(found.off[i]), float(found.error[i])) for i in wrong]
    whole = Attack(*(np.concatenate(x) for x in zip(*parts, strict=True)))
    report(whole, worst, arguments.dtype, time.perf_counter() - start)


def report(found: Attack, wrong: list, dtype: str, seconds: float) -> None:
    right = found.known & (found.off <= float(np.finfo(dtype).eps) ** 0.6)  # to the default tolerance
    unknown = (found.successful & ~found.known).sum()
    print(f"{len(found.kappa):,} fixed points in {dtype}, {seconds:.0f} s")
    print(f"successful {found.successful.sum():,}; of these without a reference {unknown}")
    print(f"error above the reported bound: {len(wrong)}")
    for K, loop, off, error in wrong[:10]:
        kappa = float(loop.beta) / (1 - float(loop.alpha))
        print(f"  K = {K}, kappa = {kappa:.3g}, lam = {loop.lam:.3g}: off {off:.2g}, said {error:.2g}")
    print("steps at 50, 99, 99.9, 100 %:", *np.quantile(found.steps, [0.5, 0.99, 0.999, 1]).astype(int))
    for decade in range(-1, 12):
        at = np.floor(np.log10(found.kappa)) == decade
        if at.any():
            refused = at & ~found.successful
            counts = f"{at.sum():8,}, refused {refused.sum():7,}, of these right {(refused & right).sum():,}"
            print(f"  kappa 1e{decade:+d}: {counts}")


if __name__ == "__main__":
    main()
