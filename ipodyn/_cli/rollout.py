"""`ipodyn rollout`: one loop, its numbers and its picture."""

import dataclasses
import math
import pathlib

import jax
import numpy as np

from .. import plot
from .._equilibria.certificate import contraction_bound
from .._loops.mrs import MRS
from .._loops.starts import generic_start
from .._numerics.checks import check_alpha, check_beta, check_lam
from .._numerics.results import RESULTS
from .._objectives.dpo import DPO
from .._objectives.ipo import IPO
from .._rollouts.regimes import Regime, RegimeThresholds, classify, settled
from .._rollouts.rollout import rollout
from ..data import PreferenceSet
from .errors import CommandError, foreseen
from .output import console, say, write_out
from .parsing import parse_policy
from .sources import Source

_PICTURES = (".png", ".pdf", ".svg")
_NAMED = 12  # probabilities printed


@dataclasses.dataclass(frozen=True)
class RolloutCommand:
    """The options of `ipodyn rollout`, and what it does with them."""

    source: Source
    index: int
    alpha: float
    beta: float
    lam: float
    rounds: int
    objective: str
    start: str | None
    dtype: str
    show: int
    out: pathlib.Path
    overwrite: bool

    def run(self) -> None:
        self._check()
        if self.dtype == "float64":
            jax.config.update("jax_enable_x64", True)
        preferences = self.source.load()
        M, K = preferences.P.shape[:2]
        if not 0 <= self.index < M:
            raise CommandError(f"--index is {self.index}; the set has {M} matrices, 0 to {M - 1}")
        start = self._start(K)
        P = preferences.P[self.index].astype(self.dtype)
        loop = MRS(
            P,
            alpha=self.alpha,
            beta=self.beta,
            lam=self.lam,
            objective=DPO() if self.objective == "dpo" else IPO(),
        )
        orbit = rollout(loop, start, num_steps=self.rounds, save=_itself, throw=False)
        if orbit.result != RESULTS.successful:
            raise CommandError(f"matrix {self.index}: {RESULTS[orbit.result]}")
        regime = Regime(int(classify(orbit))).name
        words = f"α = {self.alpha:g}, β = {self.beta:g}, λ = {self.lam:g}, {self.objective.upper()}"
        screen = console()
        for line in self._lines(preferences, loop, start, orbit, regime):
            say(screen, line)
        path = np.concatenate([start[None], np.asarray(orbit.saved)])
        figure = plot.rollout(path, show=self.show, title=f"{preferences.source}\n{words} · {regime}")
        write_out(self.out, figure.savefig)
        say(screen, f"picture    {self.out}")

    def _check(self) -> None:
        with foreseen(ValueError):
            check_alpha(self.alpha, name="--alpha")
            check_beta(self.beta, name="--beta")
            check_lam(self.lam, name="--lam")
        for name, value in (("--rounds", self.rounds), ("--show", self.show)):
            if value < 1:
                raise CommandError(f"{name} is {value}; it must be at least 1")
        if self.out.suffix.lower() not in _PICTURES:
            raise CommandError(f"--out is {self.out}; name a picture ending in {', '.join(_PICTURES)}")
        if not self.out.parent.is_dir():
            raise CommandError(f"{self.out}: the folder {self.out.parent} does not exist; make it first")
        if self.out.exists() and not self.overwrite:
            raise CommandError(f"{self.out} exists already; choose another --out, or say --overwrite")
        with foreseen(ImportError):
            plot.check_available()

    def _start(self, K: int) -> np.ndarray:
        if self.start is None:
            return np.asarray(generic_start(np.full(K, 1 / K, self.dtype)))
        return parse_policy(self.start, K).astype(self.dtype)

    def _lines(self, preferences: PreferenceSet, loop: MRS, start: np.ndarray, orbit, regime: str) -> list[str]:
        K = loop.P.shape[0]
        fraction = float(orbit.entropy) / math.log(K)
        lines = [f"matrix     {self.index} of {preferences.source}, {K} responses"]
        lines.append(f"start      {_policy(start)}")
        lines.append(f"final      {_policy(np.asarray(orbit.final))}")
        lines.append(f"variance   {float(orbit.variance):.6g} over rounds 1 to {self.rounds:,}")
        lines.append(f"           {float(orbit.window_variance):.6g} over the last window of rounds")
        lines.append(f"entropy    {float(orbit.entropy):.6g} nats, {fraction:.1%} of log K")
        lines.append(f"residual   {float(orbit.residual):.3g}, the change of a probability in one more round")
        if float(orbit.growth) > 0 and bool(settled(orbit.residual, orbit.rise, RegimeThresholds())):
            lines.append(f"growth     {float(orbit.growth):.3g} of a nudge per round: at rest where it would not stay")
        lines.append(f"regime     {regime}")
        if loop.objective.is_linear:
            bound = float(contraction_bound(loop))
            meaning = "below 1: convergence is proved" if bound < 1 else "not below 1: convergence is not proved"
            lines.append(f"bound      {bound:.4g}, {meaning}")
        else:
            tolerance = RegimeThresholds().residual_for(loop.P.dtype)
            lines.append(f"           (settled means a residual of at most {tolerance:.1e})")
        return lines


def _itself(policy):
    return policy


def _policy(policy: np.ndarray) -> str:
    shown = " ".join(f"{probability:.4f}" for probability in policy[:_NAMED])
    return shown if len(policy) <= _NAMED else f"{shown} … ({len(policy)} responses)"
