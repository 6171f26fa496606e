"""What can go wrong numerically, as data: an enumeration whose members are sentences."""

import equinox as eqx
import jax
from jaxtyping import Array, Bool

from .types import X


class RESULTS(eqx.Enumeration):
    """How a solve ended: `RESULTS[result]` is the sentence, `result == RESULTS.successful` the test.

    Every verb that can fail numerically carries one; with `throw=True` (the default) the sentence is raised, with
    `throw=False` it is returned as data, which sweeps must mask on.
    """

    successful = ""
    max_steps_reached = (
        "The solver used all its steps before its residual fell below the tolerance. Raise `max_steps`, or loosen "
        "the tolerance; in float32 try float64."
    )
    diverging_scores = (
        "The Bradley-Terry scores have no finite optimum: some responses always win (or always lose) against the "
        "rest, so the comparison graph {(i, j): P[i, j] > 0} is not strongly connected. Move the entries 0 and 1 of "
        "`P` inside (0, 1), for example by `P = 0.5 + (1 - eps) * (P - 0.5)`, or drop those responses."
    )
    no_fixed_point = (
        "With alpha = 1 the reference follows the policy all the way: nothing anchors the loop, and in general it has "
        "no fixed point inside the simplex. Take alpha < 1, or use `rollout` to see where it goes."
    )
    infeasible = (
        "No value inside the bounds meets the conditions. Widen the bounds, allow a larger radius or a lower entropy, "
        "or ask it of a smaller fraction of the matrices."
    )
    stable_throughout = (
        "The loop is stable over the whole range that was searched: there is no critical value up to its end. Raise "
        "`largest` to look further."
    )
    unstable_throughout = (
        "The loop is unstable from the smallest value of the parameter on: there is no crossing from the stable side."
    )
    lost_finiteness = (
        "The iterates left the finite numbers: the step is too large for this problem. Lower the optimiser's "
        "learning rate, or use `objective.optimum`, which needs none."
    )
    unattainable = (
        "No sampling distribution meets the criterion: the largest margin is not positive, as the certificate proves. "
        "Ask for a weaker criterion or a lower floor; with throw=False the sampler that violates it least is returned."
    )
    undecided = (
        "The largest margin is too near 0 to tell its sign in this dtype. Use float64, or round `P` so that what is "
        "nearly a tie becomes one."
    )
    not_told_apart = (
        "No number of pairs that was tried tells the two loops apart with so few errors. Try more pairs, more rounds, "
        "or allow a larger `error`."
    )


def successful(result: RESULTS) -> Bool[Array, "*batch"]:
    """Whether a solve succeeded, element by element."""
    return result == RESULTS.successful


def throw_unless_successful(value: X, result: RESULTS) -> X:
    """`value`, raising at run time the sentence of a failed `result`; under `vmap` any failure raises."""
    return result.error_if(value, result != RESULTS.successful)


def choose(predicate: Bool[Array, "*batch"], yes: RESULTS, no: RESULTS) -> RESULTS:
    """`yes` where the predicate holds, else `no`, element by element (`RESULTS.where` takes scalars only)."""

    def level(x: RESULTS) -> int:
        return jax.tree.leaves(x)[0].ndim

    pick = RESULTS.where
    for axis in reversed(range(predicate.ndim)):
        depth = predicate.ndim - axis
        pick = jax.vmap(pick, in_axes=(0, 0 if level(yes) >= depth else None, 0 if level(no) >= depth else None))
    return pick(predicate, yes, no)
