"""The blocked engine: one kernel over millions of points, batch axis last, on all devices, in bounded memory."""

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

# A kernel takes its arguments and the indices (S,) of the points in one block, and returns arrays with S last.
Kernel = Callable[..., Any]
ProgressCallback = Callable[[int, int], None]
Devices = Sequence[Any]

# Bytes of loop state up to which XLA:CPU keeps a block in the first-level cache, measured; see benchmarks/README.md.
CACHE_BYTES = 16 * 1024
# Bytes of matrices, logits and sums of one block on a GPU or TPU: tens of thousands of points, to fill it.
ACCELERATOR_BYTES = 64 * 2**20
# Blocks per device and call: enough to hide the dispatch (about a millisecond), few enough for a lively progress bar.
BLOCKS_PER_CALL = 32
CHEAP_BLOCKS_PER_CALL = 1024  # where a point costs a microsecond, not thousands of rounds


def block_size(K: int, itemsize: int, *, num_points: int | None = None, devices: Devices | None = None) -> int:
    """Points per block, a power of two.

    On CPU such that matrices, logits and sums fit the cache, 64 to 128 of them. Fewer than 64 fill too few vectors to
    pay for the loop around them, whatever the cache says, and more than 128 lost at every K that was measured. Above
    K = 16, where the matrices alone take all the time, two vectors are best. On other devices, such that they fill it:
    all points, if they fit.
    """
    bytes_each = (K * K + 4 * K) * itemsize
    if (jax.local_devices() if devices is None else devices)[0].platform != "cpu":
        fitting = 1 << (ACCELERATOR_BYTES // bytes_each).bit_length() - 1
        wanted = fitting if num_points is None else 1 << (num_points - 1).bit_length()
        return max(min(fitting, wanted), 128)
    if K > 16:
        return 32
    return 128 if CACHE_BYTES // bytes_each >= 128 else 64


def compiler_options() -> dict[str, Any] | None:
    """Full-width vectors where the processor has them: twice the speed, and no global flag."""
    if jax.default_backend() == "cpu" and _has_avx512():
        return {"xla_cpu_prefer_vector_width": 512}
    return None


@functools.cache
def _has_avx512() -> bool:
    try:
        with open("/proc/cpuinfo") as cpuinfo:
            return any(line.startswith("flags") and "avx512f" in line for line in cpuinfo)
    except OSError:
        return False


@functools.lru_cache(maxsize=64)
def _compiled(kernel: Kernel, static: Any, size: int, devices: tuple[Any, ...]) -> Any:
    """One program for all calls: `lax.map` over the blocks of a device inside `shard_map` over the devices."""
    mesh = Mesh(np.array(devices), ("device",))
    split, whole = PartitionSpec("device"), PartitionSpec()

    def on_device(blocks: Any, points: Any, arguments: Any) -> Any:
        def one_block(block_and_points: Any) -> Any:
            block, own = block_and_points
            index = block * size + jnp.arange(size, dtype=block.dtype)
            return kernel(static, arguments, index) if own is None else kernel(static, arguments, index, own)

        return jax.lax.map(one_block, (blocks, points))

    program = jax.shard_map(on_device, mesh=mesh, in_specs=(split, split, whole), out_specs=split, check_vma=False)
    return jax.jit(program, compiler_options=compiler_options()), NamedSharding(mesh, split)


def run_points(
    kernel: Kernel,
    static: Any,
    arguments: Any,
    num_points: int,
    *,
    size: int,
    devices: Devices | None = None,
    progress: ProgressCallback | None = None,
    blocks_per_call: int = BLOCKS_PER_CALL,
    full_calls: bool = False,
    one_cpu: bool = False,
    points: Any = None,
) -> Any:
    """`kernel(static, arguments, indices)` for the points 0 .. num_points - 1, as NumPy arrays with the points last.

    `kernel` and `static` are hashable (a module-level function and its settings), so that one compilation serves every
    call; `arguments` are arrays. `points` are NumPy arrays (num_points, ...): the kernel gets its block's as a fourth
    argument. Where they would not all fit, it is a function that makes them for indices (blocks, size), which run on
    from each other; it is called while the devices are busy with what it made before. The indices of a block are
    consecutive; surplus points of the last block run over the end, and what comes of them is dropped. `full_calls`: all
    calls have `blocks_per_call` blocks a device, so that one compilation serves any number of points; what is surplus
    in the last is computed. `one_cpu`: on a CPU use one device alone; XLA's devices share their threads, and programs
    with LAPACK in them, on several at once, can wait for one another for ever. Memory on the devices is that of the
    blocks in flight, whatever `num_points`.
    """
    devices = tuple(jax.local_devices() if devices is None else devices)
    devices = devices[:1] if one_cpu and jax.default_backend() == "cpu" else devices
    num_blocks = -(-num_points // size)
    # Calls of equal length, so that the last one is no shorter: all are one program, whose surplus would be computed.
    per_call = len(devices) * blocks_per_call
    if not full_calls:
        per_call = len(devices) * -(-num_blocks // (len(devices) * -(-num_blocks // per_call)))
    program, sharding = _compiled(kernel, static, size, devices)
    arguments = jax.device_put(arguments, NamedSharding(sharding.mesh, PartitionSpec()))  # once, not at every call
    results: list[np.ndarray] = []
    running: tuple[int, list[jax.Array]] | None = None
    structure: Any = None

    def collect(first: int, outputs: list[jax.Array]) -> None:
        if not results:
            results.extend(np.empty((*x.shape[1:-1], num_points), x.dtype) for x in outputs)
        for x, result in zip(outputs, results, strict=True):
            for shard in x.addressable_shards:
                start = (first + (shard.index[0].start or 0)) * size
                # (blocks, ..., size) -> (..., points)
                part = np.moveaxis(np.asarray(shard.data), 0, -2).reshape((*x.shape[1:-1], -1))
                result[..., start : start + part.shape[-1]] = part[..., : max(num_points - start, 0)]
        if progress is not None:
            progress(min(num_points, (first + per_call) * size), num_points)

    # One call ahead: the devices compute while the host takes what they have done.
    for first in range(0, num_blocks, per_call):
        blocks = np.minimum(np.arange(first, first + per_call), num_blocks - 1).astype(np.int32)
        own = np.minimum(blocks[:, None].astype(np.int64) * size + np.arange(size), num_points - 1)
        given = points(own) if callable(points) else jax.tree.map(operator.itemgetter(own), points)
        output = program(jax.device_put(blocks, sharding), jax.device_put(given, sharding), arguments)
        outputs, structure = jax.tree.flatten(output)
        if running is not None:
            collect(*running)
        running = first, outputs
    assert running is not None
    collect(*running)
    return jax.tree.unflatten(structure, results)
