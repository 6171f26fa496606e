"""Many rounds of a linear response in one GPU kernel: matrix, logits and sums stay in registers.

A plain scan launches several kernels a round and reads matrices and state from memory in each. Here a program takes
`LANES` trajectories, one a lane, through all rounds of a chunk, and memory is seen once before and once after.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from .._loops.loop import AbstractRound
from .._loops.normal_form import Round, State
from .._numerics.simplex import EXCLUDED, LOG_ZERO
from .._numerics.types import PolicyBlock, ScalarBlock
from .._objectives.response import LinearResponse

LANES = 128  # trajectories of one program
LARGEST_K = 8  # K^2 + 5 K registers a lane: 104 of 255


def serves(one_round: AbstractRound, state: Any) -> bool:
    """Whether the kernel can run these rounds: a linear response, few responses, one batch axis of whole programs."""
    policy = jax.eval_shape(one_round.policy, state)
    return (
        isinstance(one_round, Round)
        and isinstance(one_round.response, LinearResponse)
        and policy.shape[0] <= LARGEST_K
        and policy.ndim == 2
        and policy.shape[1] % LANES == 0
        and policy.dtype == jnp.float32
    )


def _kernel(
    alpha_ref: Any, drive_ref: Any, gain_ref: Any, logits_ref: Any, policy_ref: Any, *outputs: Any, length: int
):
    """The rounds of `Round.__call__`, written for rows: one vector of lanes for every response."""
    final_logits_ref, final_policy_ref, total_ref, squares_ref = outputs
    K = drive_ref.shape[0]
    alpha = alpha_ref[:]
    drive = [drive_ref[i, :] for i in range(K)]
    gain = [[gain_ref[i, j, :] for j in range(K)] for i in range(K)]
    origin = [policy_ref[i, :] for i in range(K)]

    def body(_: Any, carry: Any) -> Any:
        logits, policy, total, squares = carry
        logits = [
            functools.reduce(lambda x, j, i=i: x + gain[i][j] * policy[j], range(K), alpha * logits[i] + drive[i])
            for i in range(K)
        ]
        top = functools.reduce(jnp.maximum, logits)
        logits = [jnp.where(x - top < EXCLUDED, LOG_ZERO, x - top) for x in logits]
        weights = [jnp.exp(x) for x in logits]
        scale = 1 / functools.reduce(jnp.add, weights)
        policy = [x * scale for x in weights]
        apart = [x - y for x, y in zip(policy, origin, strict=True)]
        total = [x + y for x, y in zip(total, apart, strict=True)]
        squares = functools.reduce(lambda x, y: x + y * y, apart, squares)
        return logits, policy, total, squares

    zero = jnp.zeros_like(alpha)
    start = ([logits_ref[i, :] for i in range(K)], origin, [zero] * K, zero)
    logits, policy, total, squares = jax.lax.fori_loop(0, length, body, start)
    for i in range(K):
        final_logits_ref[i, :] = logits[i]
        final_policy_ref[i, :] = policy[i]
        total_ref[i, :] = total[i]
    squares_ref[:] = squares


def sum_rounds(
    one_round: AbstractRound, state: State, length: int, *, interpret: bool = False
) -> tuple[State, PolicyBlock, ScalarBlock]:
    """The state after `length` rounds, the sum of the policies' deviations from the first, and that of their squares.

    `interpret` runs the kernel as ordinary JAX operations, on any device, to test it. No derivatives.
    """
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import triton

    assert isinstance(one_round, Round)
    response = one_round.response
    assert isinstance(response, LinearResponse)
    K, size = state.policy.shape
    lanes = pl.BlockSpec((LANES,), lambda i: (i,))
    rows = pl.BlockSpec((K, LANES), lambda i: (0, i))
    matrices = pl.BlockSpec((K, K, LANES), lambda i: (0, 0, i))
    vector, policies = (jax.ShapeDtypeStruct(shape, state.policy.dtype) for shape in ((size,), (K, size)))
    logits, policy, total, squares = pl.pallas_call(
        functools.partial(_kernel, length=length),
        grid=(size // LANES,),
        in_specs=[lanes, rows, matrices, rows, rows],
        out_specs=[rows, rows, rows, lanes],
        out_shape=[policies, policies, policies, vector],
        compiler_params=triton.CompilerParams(num_warps=LANES // 32, num_stages=1),
        interpret=interpret,
        name="mrs_ipo_rounds",
    )(one_round.alpha, one_round.drive + response.drive, response.gain, state.logits, state.policy)
    return State(logits, policy, state.memory), total, squares
