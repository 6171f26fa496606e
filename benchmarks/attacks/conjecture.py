"""A search for loops that are proved stable without knowing the fixed point, and yet do not converge from everywhere.

    python -m benchmarks.attacks.conjecture --loops 10000000

`locally_stable_certificate` proves stability where alpha^2 + (2 b / 3)^2 < 1, b = beta lam ||Pi A Pi|| / 2. Is that
enough for convergence from every start? Open. Loops are drawn at 0.95 to 0.998 of the limit, K = 3..12, a third with
all preferences 0 or 1, references from uniform to nearly on a face, starts from next to a vertex to next to a face. All
are rolled out; then each is moved at random a few times, and kept where it settles more slowly, at 0.998 of the limit.
Of each block those that settle most slowly go on, long enough for any that settles; one that still moves then is
printed in full.
"""

import argparse
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

SIZES = tuple(range(3, 13))
FIRST, MORE = 300, 20_000  # rounds of all, and of those that move still


class Block(NamedTuple):
    """Skew part A (K, K, B), alpha (B,), drive and logits (K, B): z' = alpha z + drive + A softmax(z)."""

    A: Array
    alpha: Array
    drive: Array
    logits: Array


def draw(key: Array, K: int, B: int) -> Block:
    keys = jax.random.split(key, 8)
    upper = jax.random.uniform(keys[0], (K, K, B), minval=-0.5, maxval=0.5)
    sure = jax.random.uniform(keys[1], (B,)) < 1 / 3
    upper = jnp.where(sure, jnp.sign(upper) / 2, upper)
    A = jnp.triu(jnp.ones((K, K)), 1)[..., None] * upper
    alpha = jax.random.uniform(keys[2], (B,)) * jnp.where(jax.random.uniform(keys[3], (B,)) < 0.3, 0.0, 0.95)
    scale = 10 ** jax.random.uniform(keys[4], (2, B), minval=-1.0, maxval=1.2)
    log_ref = jax.random.normal(keys[5], (K, B)) * scale[0]
    start = jax.random.normal(keys[6], (K, B)) * scale[1]
    limit = 1 - 10 ** jax.random.uniform(keys[7], (B,), minval=-2.7, maxval=-1.3)
    return scaled(A - A.swapaxes(0, 1), alpha, (1 - alpha) * log_ref, start, limit)


def scaled(A: Array, alpha: Array, drive: Array, start: Array, limit: Array) -> Block:
    """A times beta lam, so that alpha^2 + (2 b / 3)^2 is the limit."""
    means = jnp.mean(A, axis=1)
    B = jnp.moveaxis(A - means[:, None] + means[None], -1, 0)
    norm = jnp.sqrt(jnp.linalg.eigvalsh(B @ B.swapaxes(1, 2))[:, -1])
    strength = 3 * jnp.sqrt(jnp.maximum(limit - alpha**2, 0)) / jnp.maximum(norm, 1e-6)
    return Block(A * strength, alpha, drive, start)


def movement(block: Block, rounds: int) -> Array:
    """The largest change of a probability in the last round."""
    policy = jax.nn.softmax

    def step(_: Any, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        logits = carry[1]
        moved = block.alpha * logits + block.drive + jnp.einsum("ijb,jb->ib", block.A, policy(logits, axis=0))
        return logits, moved - jnp.max(moved, axis=0)

    last, now = jax.lax.fori_loop(0, rounds, step, (block.logits, block.logits))
    return jnp.max(jnp.abs(policy(now, axis=0) - policy(last, axis=0)), axis=0)


@jax.jit
def mutate(key: Array, block: Block) -> Block:
    """The same loops, a little elsewhere, at the limit again."""
    keys = jax.random.split(key, 5)
    size = 10 ** jax.random.uniform(keys[0], block.alpha.shape, minval=-3.0, maxval=-0.5)
    noise = jnp.triu(jnp.ones(block.A.shape[:2]), 1)[..., None] * jax.random.normal(keys[1], block.A.shape)
    largest = jnp.max(jnp.abs(block.A), axis=(0, 1))
    A = block.A / jnp.maximum(largest, 1e-6) / 2 + size * (noise - noise.swapaxes(0, 1)) / 2
    A = jnp.clip(A, -0.5, 0.5)
    alpha = jnp.clip(block.alpha + 0.3 * size * jax.random.normal(keys[2], block.alpha.shape), 0.0, 0.97)
    drive = block.drive + size * (1 + jnp.abs(block.drive)) * jax.random.normal(keys[3], block.drive.shape)
    start = block.logits + 3 * size * jax.random.normal(keys[4], block.logits.shape)
    return scaled(A, alpha, drive, start, jnp.full_like(alpha, 0.998))


first = jax.jit(lambda block: movement(block, FIRST))
longer = jax.jit(lambda block: movement(block, MORE))


def suspects(block: Block, moves: Array, number: int) -> Block:
    worst = jnp.argsort(-moves)[:number]
    return jax.tree.map(lambda x: x[..., worst], block)


def search(loops: int, seed: int, block_size: int, generations: int, seconds: float) -> tuple[int, list[Block]]:
    """How many loops were looked at, and those that still moved at the end."""
    began, seen, found = time.perf_counter(), 0, []
    key = jax.random.key(seed)
    while seen < loops and time.perf_counter() - began < seconds:
        for K in SIZES:
            if time.perf_counter() - began >= seconds:
                break
            key, now = jax.random.split(key)
            block = draw(now, K, block_size)
            moves = first(block)
            seen += block_size
            for _ in range(generations):  # the slowest become slower
                key, now = jax.random.split(key)
                tried = mutate(now, block)
                other = first(tried)
                better = other > moves
                block = jax.tree.map(lambda a, b, better=better: jnp.where(better, b, a), block, tried)
                moves = jnp.maximum(moves, other)
                seen += block_size
            few = suspects(block, moves, max(8, block_size // 256))
            moving = np.flatnonzero(np.asarray(longer(few)) > 1e-5)
            if moving.size:
                found.append(jax.tree.map(lambda x, moving=moving: np.asarray(x)[..., moving], few))
                print(f"K = {K}: {moving.size} still moving\n{found[-1]!r}", flush=True)
    return seen, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loops", type=int, default=10_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--block", type=int, default=16_384, help="loops at once")
    parser.add_argument("--generations", type=int, default=4, help="of moves towards slower loops, for each block")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so long")
    arguments = parser.parse_args()
    # In single precision rounding keeps loops moving that contract by a thousandth.
    jax.config.update("jax_enable_x64", True)
    began = time.perf_counter()
    seen, found = search(arguments.loops, arguments.seed, arguments.block, arguments.generations, arguments.seconds)
    print(f"{seen:,} loops, {sum(block.alpha.size for block in found)} that do not settle")
    print(f"{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
