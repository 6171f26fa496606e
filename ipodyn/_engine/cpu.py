"""CPU set-up: one JAX device a core, full vector width, whole loops compiled as one."""

import importlib.metadata
import os
import pathlib
import re

import jax

# Loops over blocks that fit the cache are to compile into one function instead of a dispatch per round.
_WHOLE_LOOPS = "--xla_backend_extra_options=xla_cpu_small_while_loop_byte_threshold=100000000"
_WIDE = "--xla_cpu_prefer_vector_width=512"


def configure_cpu(num_devices: int | None = None) -> int:
    """Set JAX up for sweeps on a CPU; call it once, before any JAX computation.

    It asks for one JAX device a core, adds two XLA flags to the environment variable `XLA_FLAGS` (512-bit vectors
    where the processor has them; loops over blocks compiled whole), and changes nothing else. What `XLA_FLAGS` or
    `jax_num_cpu_devices` already say is kept. The command line calls it; importing ipodyn does not.

    - `num_devices`: how many CPU devices; None takes the cores this process may use.

    Returns the number of CPU devices JAX will have. Raises `RuntimeError` if JAX has computed something already:
    its backend reads these settings once.

    >>> import ipodyn, jax
    >>> len(jax.devices()) > 0  # this starts JAX
    True
    >>> ipodyn.configure_cpu()
    Traceback (most recent call last):
    ...
    RuntimeError: `configure_cpu` was called after JAX had started; call it before any JAX computation, best right
    after the imports.
    """
    if num_devices is not None and num_devices < 1:
        raise ValueError(f"`num_devices` is {num_devices}; it must be at least 1.")
    flags = os.environ.get("XLA_FLAGS", "")
    asked = _asked()
    count = num_devices or (asked if asked > 0 else _host_devices(flags) or _cores())
    _set_devices(count)
    os.environ["XLA_FLAGS"] = _with_ours(flags)
    return count


def _asked() -> int:
    """JAX's option, -1 where it is not set."""
    return jax.config.jax_num_cpu_devices  # pyright: ignore[reportAttributeAccessIssue]


def _set_devices(count: int) -> None:
    try:
        # JAX refuses a change once its backend is up, but lets the present value pass; so change it for certain.
        if _asked() == count:
            jax.config.update("jax_num_cpu_devices", count + 1)
        jax.config.update("jax_num_cpu_devices", count)
    except RuntimeError as error:
        raise RuntimeError(
            "`configure_cpu` was called after JAX had started; call it before any JAX computation, best right "
            "after the imports."
        ) from error


def _with_ours(flags: str) -> str:
    """`flags` with ours behind, except where the user has decided them."""
    ours = []
    if "xla_cpu_prefer_vector_width" not in flags and _has_avx512():
        ours.append(_WIDE)
    # XLA ends the process on a flag it does not know, and this one came with jaxlib 0.7.1.
    if "xla_cpu_small_while_loop_byte_threshold" not in flags and _jaxlib_version() >= (0, 7, 1):
        ours.append(_WHOLE_LOOPS)
    return " ".join([flags, *ours]).strip()


def _jaxlib_version() -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", importlib.metadata.version("jaxlib"))[:3])


def _host_devices(flags: str) -> int | None:
    """The number of devices that the older XLA flag asks for."""
    for flag in flags.split():
        name, _, value = flag.partition("=")
        if name == "--xla_force_host_platform_device_count" and value.isdigit():
            return int(value)
    return None


def _has_avx512() -> bool:
    try:
        return "avx512f" in pathlib.Path("/proc/cpuinfo").read_text()
    except OSError:
        return False


def _cores() -> int:
    """The cores this process may use: its affinity, and no more than its quota in a container."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        cores = os.cpu_count() or 1
    try:
        quota, period = pathlib.Path("/sys/fs/cgroup/cpu.max").read_text().split()
        cores = min(cores, -(-int(quota) // int(period)))
    except (OSError, ValueError):  # no such limit ("max"), or another kind of system
        pass
    return max(cores, 1)
