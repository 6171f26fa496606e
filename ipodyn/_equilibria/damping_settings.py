"""A damping in the terms of a trainer: what to set so that rounds take smaller steps towards the same aim."""

import equinox as eqx
import jax.numpy as jnp
from jax.core import Tracer

from .._loops.mrs import MRS
from .._numerics.types import ScalarBlock, ScalarLike, as_float
from .damping import damped


class DampingSettings(eqx.Module):
    """Ways to damp a loop by s, each in the terms of a trainer; `str` is `describe()`.

    - `s` (): the damping. - `reference` (): alpha_s, weight of the current policy in the reference of each round, in
      log space. - `beta` (): beta_s. - `trl_beta_factor` (): 1 / s, what TRL's `beta` is multiplied by.
    - `gradient_time` (): steps times learning rate of a round that stops early, the same only if all pairs are sampled
      alike; inf for s >= 1.
    """

    s: ScalarBlock
    reference: ScalarBlock
    beta: ScalarBlock
    trl_beta_factor: ScalarBlock
    gradient_time: ScalarBlock

    def describe(self) -> str:
        """The settings as a table, one way a line, with what to know about it."""

        def number(x: ScalarBlock) -> str:
            return "(traced)" if isinstance(x, Tracer) else f"{float(x):.6g}"

        mixture, beta, factor = number(self.reference), number(self.beta), number(self.trl_beta_factor)
        rows = [
            ("settings", f"reference {mixture} of the current policy, the rest of the first"),
            ("", f"beta {beta}: TRL's beta times {factor}"),
            ("interpolation", f"after each round keep {number(self.s)} of the change of logits (or weights)"),
            ("fewer steps", f"steps x rate {number(self.gradient_time)}, and only if pairs are sampled uniformly:"),
            ("", "otherwise it is another loop, and may be less stable; interpolate instead"),
        ]
        lines = [f"  {name:14}{what}" for name, what in rows]
        return "\n".join([f"damping s = {number(self.s)}: the same aim, one of", *lines])

    def __str__(self) -> str:
        return self.describe()


def damping_settings(loop: MRS, s: ScalarLike) -> DampingSettings:
    r"""What to set in a trainer so that a loop is damped by s, as by `damped(loop, s)`.

    Either of: the reference mixture \(\alpha_s = 1 - s(1 - \alpha)\) with \(\beta_s = s\beta\) (TRL's `beta`, its
    inverse up to the length of completions, times 1 / s); or full rounds at the old settings, then logits
    \((1 - s)\log\pi_t + s\log\pi_{t+1}\), which interpolated weights approximate; or, with pairs sampled uniformly and
    IPO only, fewer gradient steps, \(s = 1 - (1 - 4\eta/K)^m\), so that \(m\eta \approx -\tfrac K4\log(1 - s)\).

    - `s`: as in `damped`.

    Source: derived here.

    >>> import ipodyn
    >>> loop = ipodyn.MRS(ipodyn.problems.three_cycle(0.3), alpha=0.5, beta=8.0, lam=1.0)
    >>> print(ipodyn.damping_settings(loop, 0.25))
    damping s = 0.25: the same aim, one of
      settings      reference 0.875 of the current policy, the rest of the first
                    beta 2: TRL's beta times 4
      interpolation after each round keep 0.25 of the change of logits (or weights)
      fewer steps   steps x rate 0.215762, and only if pairs are sampled uniformly:
                    otherwise it is another loop, and may be less stable; interpolate instead
    """
    after = damped(loop, s)
    s = as_float(s, loop.P)
    short = s < 1
    time = jnp.where(short, -loop.P.shape[0] / 4 * jnp.log1p(-jnp.where(short, s, 0.0)), jnp.inf)
    return DampingSettings(s, after.alpha, after.beta, 1 / s, time)
