r"""Many prompts in one loop: fixed points, critical values, posteriors; any number of prompts, in bounded memory."""

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .._engine.blocks import block_size, run_points
from .._equilibria.certificate import solve_certificate
from .._equilibria.critical import CODES, solve_critical
from .._equilibria.equilibrium import equilibrium
from .._loops.mrs import MRS
from .._numerics.randomness import RandomKey
from .._numerics.results import RESULTS
from .._numerics.simplex import entropy, kl_divergence, matvec
from .._numerics.types import PolicyBlock, PreferenceBlock, ScalarBlock
from .._objectives.objective import AbstractObjective
from .._preferences.hodge import hodge_split
from .._preferences.pairs import from_upper
from .._preferences.posterior import posterior_of_prompts
from .._preferences.structure import has_cycle, strong_order
from .parts import EquilibriumSummary, Forecast, PreferenceSummary

SMALL, BATCH = 32, 8192  # points of one call to the devices, for at most `SMALL` prompts and for larger sets
LARGEST = {"alpha": 0.9999, "beta": 1e4, "lam": 1.0}  # ends of the searches for critical values
POSTERIOR_DRAWS = 64
PRIOR = 0.5  # pseudo-wins of either side (Jeffreys)

Report = Callable[[float], None]  # called with the fraction of the work in hand that is done


class Shared(eqx.Module):
    """A loop without its preferences: what all prompts have in common."""

    alpha: Float[Array | np.ndarray, ""]
    beta: Float[Array | np.ndarray, ""]
    lam: Float[Array | np.ndarray, ""]
    pi_ref: Float[Array | np.ndarray, " K"]
    pi_0: Float[Array | np.ndarray, " K"]
    objective: AbstractObjective

    def loops(self, P: Float[Array, "S K K"]) -> MRS:
        """The loops of a block of prompts, batch axis behind."""
        S, K = P.shape[:2]
        scalars = {name: jnp.broadcast_to(getattr(self, name), (S,)) for name in CODES}
        policies = {name: jnp.broadcast_to(getattr(self, name)[:, None], (K, S)) for name in ("pi_ref", "pi_0")}
        return MRS(jnp.moveaxis(P, 0, -1), **scalars, **policies, objective=self.objective)


def _facts(static: None, shared: Shared, index: Int[Array, " S"], P: Float[Array, "S K K"]) -> EquilibriumSummary:
    loop = shared.loops(P)
    at_rest = equilibrium(loop)
    policy, spectrum = at_rest.star.policy, at_rest.stability
    cycle, mass = _cycle(loop.P, policy)
    return EquilibriumSummary(
        alpha=loop.alpha,
        policy=jnp.where(at_rest.solved[None], policy, jnp.nan),
        entropy=at_rest.known(entropy(policy)),
        drift=at_rest.known(kl_divergence(policy, loop.pi_ref)),
        result=at_rest.star.result,
        residual=at_rest.star.residual,
        radius=at_rest.radius,
        omega=at_rest.known(spectrum.omega),
        period=at_rest.known(spectrum.period),
        cycle=cycle,
        cycle_mass=at_rest.known(mass),
    )


def _cycle(P: PreferenceBlock, policy: PolicyBlock) -> tuple[Array, ScalarBlock]:
    """The triangle that drives the policy round, in the order in which it goes, and its probability."""
    K = P.shape[0]
    if K < 3:
        return jnp.zeros((3, *policy.shape[1:]), jnp.int32), jnp.zeros_like(policy[0])
    i, j, k = np.array(list(itertools.combinations(range(K), 3))).T
    curl = P[i, j] + P[j, k] + P[k, i] - 1.5
    weight = policy[i] * policy[j] * policy[k]
    worst = jnp.argmax(jnp.abs(curl) * jnp.sqrt(weight), axis=0)
    forward = jnp.take_along_axis(curl, worst[None], axis=0)[0] >= 0
    first, second, third = (jnp.asarray(x, jnp.int32)[worst] for x in (i, j, k))
    cycle = jnp.stack([first, jnp.where(forward, second, third), jnp.where(forward, third, second)])
    return cycle, jnp.sum(jnp.take_along_axis(policy, cycle, axis=0), axis=0)


def _certified(static: None, shared: Shared, index: Int[Array, " S"], P: Float[Array, "S K K"]) -> Array:
    """Which loops are proved to converge from every start; where no proof is sought, none."""
    loop = shared.loops(P)
    return solve_certificate(loop).certified if loop.objective.is_linear else jnp.zeros(index.shape, bool)


def _forecast(
    rounds: tuple[int, ...], shared: Shared, index: Int[Array, " S"], P: Float[Array, "S K K"]
) -> tuple[Array, Array, Array, Array]:
    """Entropy, drift, favourite, and whether that is another than the first model's data prefer, after some rounds."""
    loop = shared.loops(P)
    one_round = loop.round()

    def body(state: Any, _: None) -> tuple[Any, tuple[Array, Array, Array]]:
        state = one_round(state)
        policy = one_round.policy(state)
        return state, (entropy(policy), kl_divergence(policy, loop.pi_ref), jnp.argmax(policy, axis=0))

    _, seen = jax.lax.scan(body, one_round.start(loop.pi_ref), length=rounds[-1])
    spread, drift, top = (x[jnp.asarray(rounds) - 1] for x in seen)
    return spread, drift, top, top != jnp.argmax(matvec(loop.P, loop.pi_ref), axis=0)[None]


def _critical(
    static: None, shared: Shared, index: Int[Array, " S"], given: tuple[Float[Array, "S K K"], Int[Array, " S"]]
) -> tuple[Array, RESULTS]:
    """Critical values of the parameter that each point names: one search, because compiling it is what takes time."""
    P, which = given
    ends = jnp.asarray([LARGEST[name] for name in CODES], P.dtype)
    found = solve_critical(shared.loops(P), which, ends[which])
    return found.value, found.result


def _structure(static: None, nothing: None, index: Int[Array, " S"], P: Float[Array, "S K K"]) -> PreferenceSummary:
    return jax.vmap(_structure_of, out_axes=-1)(P)


def _structure_of(P: Float[Array, "K K"]) -> PreferenceSummary:
    split = hodge_split(P)
    if split.curl.shape[0] == 0:  # two responses have no triangle
        none = jnp.zeros((), P.dtype)
        return PreferenceSummary(has_cycle(P), strong_order(P).holds, none, jnp.zeros(3, jnp.int32), none, none)
    worst = jnp.argmax(split.fraction)
    i, j, k = split.triangles[worst]
    forward = split.curl[worst] >= 0
    triangle = jnp.where(forward, jnp.stack([i, j, k]), jnp.stack([i, k, j]))
    curl, fraction = jnp.abs(split.curl[worst]), split.fraction[worst]
    return PreferenceSummary(has_cycle(P), strong_order(P).holds, split.cyclic_fraction, triangle, curl, fraction)


@dataclasses.dataclass(frozen=True)
class Prompts:
    """Matrices (M, K, K) on the host and the loop that they go through; methods compute things of any of them.

    `size` points make a block, `blocks` of them a call to each device: `batch` points, however many there are in all.
    """

    P: np.ndarray
    shared: Shared
    size: int
    blocks: int

    @classmethod
    def of(cls, P: np.ndarray, shared: Shared) -> "Prompts":
        M, K = P.shape[:2]
        devices = jax.local_device_count()
        if M <= SMALL:
            return cls(P, shared, max(SMALL // devices, 1), 1)
        size = block_size(K, P.dtype.itemsize, num_points=M)
        wanted = min(BATCH, 1 << (M - 1).bit_length())
        return cls(P, shared, size, max(wanted // (size * devices), 1))

    @property
    def batch(self) -> int:
        return self.size * self.blocks * jax.local_device_count()

    def _run(
        self, kernel: Any, arguments: Any, number: int, points: Any, report: Report | None = None, static: Any = None
    ) -> Any:
        return run_points(
            kernel,
            static,
            arguments,
            number,
            size=self.size,
            blocks_per_call=self.blocks,
            full_calls=True,
            one_cpu=self.P.shape[-1] > 4,
            points=points,
            progress=None if report is None else lambda done, total: report(done / total),
        )

    def compile(self) -> None:
        """Makes what all prompts need, by one of them, so that a progress bar can begin with the work itself."""
        first = np.zeros(1, int)
        self.structure(first)
        self.certified(first)
        if not self.facts(first).diverging[0]:
            self.critical(first)

    def structure(self, prompts: np.ndarray) -> PreferenceSummary:
        """What the preferences of some prompts are like, these last."""
        return self._run(_structure, None, prompts.size, lambda own: self.P[prompts[own]])

    def certified(self, prompts: np.ndarray) -> np.ndarray:
        """Which prompts are proved to converge from every start."""
        return self._run(_certified, self.shared, prompts.size, lambda own: self.P[prompts[own]])

    def forecast(self, rounds: tuple[int, ...]) -> Forecast:
        """What so many rounds do to all prompts, from the first model."""
        found = self._run(_forecast, self.shared, len(self.P), lambda own: self.P[own], static=rounds)
        return Forecast(np.asarray(rounds), *found)

    def facts(self, prompts: np.ndarray, **changed: float) -> EquilibriumSummary:
        """The fixed points of some prompts, these last, with parameters changed."""
        dtype = self.P.dtype
        names = list(changed)
        values = [np.asarray(value, dtype) for value in changed.values()]
        shared = eqx.tree_at(lambda shared: [getattr(shared, name) for name in names], self.shared, values)
        return self._run(_facts, shared, prompts.size, lambda own: self.P[prompts[own]])

    def critical(self, prompts: np.ndarray, report: Report | None = None) -> tuple[np.ndarray, RESULTS]:
        """Critical values of some prompts and what came of the searches, (3, prompts), in the order of `CODES`."""
        kinds = len(CODES)

        def given(own: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            which, place = np.divmod(own, prompts.size)
            return self.P[prompts[place]], which.astype(np.int32)

        if prompts.size == 0:
            none = np.zeros((kinds, 0), self.P.dtype)
            return none, jax.tree.map(lambda code: np.full(none.shape, code), RESULTS.successful)
        values = self._run(_critical, self.shared, kinds * prompts.size, given, report)
        return jax.tree.map(lambda x: x.reshape(kinds, prompts.size), values)

    def posterior_radius(
        self, prompts: np.ndarray, counts: np.ndarray, key: RandomKey, report: Report | None = None
    ) -> np.ndarray:
        """Spectral radii of draws of P given counts (M, K, K), (prompts, draws); inf where a draw could not be solved.

        What is drawn for a prompt depends on the key and its place in the set alone.
        """
        K = self.P.shape[-1]

        def drawn(own: np.ndarray) -> np.ndarray:
            place, draw = np.divmod(own, POSTERIOR_DRAWS)
            first = int(place.min())
            here = prompts[first : int(place.max()) + 1]
            wins = counts[here] * self.P[here]
            upper = posterior_of_prompts(key, here, wins, num_draws=POSTERIOR_DRAWS, prior=PRIOR)
            return from_upper(upper[place - first, draw].astype(self.P.dtype), K)

        facts = self._run(_facts, self.shared, POSTERIOR_DRAWS * prompts.size, drawn, report)
        return np.where(facts.solved, facts.radius, np.inf).reshape(prompts.size, POSTERIOR_DRAWS)
