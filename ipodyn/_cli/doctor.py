"""`ipodyn doctor`: what is installed, what JAX runs on, and whether known answers come out."""

import contextlib
import importlib.metadata
import math
import os
import platform
import re
import sys
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from .errors import CommandError

PACKAGE = "ipodyn"
# What a number may depend on beyond the versions; values may hold nothing private, unlike the rest of the environment.
_VARIABLES = ("XLA_FLAGS", "JAX_PLATFORMS", "JAX_ENABLE_X64", "JAX_NUM_CPU_DEVICES", "CUDA_VISIBLE_DEVICES")


def _requirements() -> dict[str, str]:
    """Distribution name: the smallest extra that brings it, or nothing for the core, as the package's metadata says."""
    extras: dict[str, set[str]] = {"": {"jaxlib"}}
    for line in importlib.metadata.requires(PACKAGE) or []:
        name = re.split(r"[^A-Za-z0-9_.-]", line, maxsplit=1)[0]
        extra = re.search(r"extra == ['\"](\w+)['\"]", line)
        if name != PACKAGE and (extra is None or extra[1] not in ("all", "test", "lint")):
            extras.setdefault(extra[1] if extra else "", set()).add(name)
    # Extras that include others are written out by some build tools, in any order: the smallest is the one to name.
    by_size = sorted(extras.items(), key=lambda item: (item[0] != "", len(item[1])), reverse=True)
    return {name: extra for extra, names in by_size for name in names}


def versions() -> Iterator[tuple[str, str]]:
    """(name, version) of ipodyn, Python, the system, and everything ipodyn may use."""
    yield PACKAGE, importlib.metadata.version(PACKAGE)
    yield "python", platform.python_version()
    yield "system", f"{platform.system()} {platform.machine()}"
    for name, extra in sorted(_requirements().items()):
        try:
            yield name, importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield name, f"not installed (pip install 'ipodyn[{extra}]')" if extra else "not installed"


@contextlib.contextmanager
def _precision(dtype: np.dtype) -> Iterator[None]:
    before = jax.config.values["jax_enable_x64"]
    jax.config.update("jax_enable_x64", dtype == np.float64)
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", before)


def _three_cycle(dtype: np.dtype) -> float:
    """Largest miss of radius^2 = alpha^2 + a^2 beta^2 lam^2 / 3 over a few three-cycles, in roundings of the dtype."""
    import ipodyn

    worst = 0.0
    for a, alpha, beta, lam in [(0.3, 0.9, 4.0, 0.8), (0.5, 0.5, 2.0, 1.0), (0.1, 0.0, 8.0, 0.5)]:
        P = jnp.asarray(ipodyn.problems.three_cycle(a), dtype)
        loop = ipodyn.MRS(P, alpha=alpha, beta=beta, lam=lam)
        radius = float(ipodyn.stability(loop, ipodyn.fixed_point(loop).policy).radius)
        known = math.sqrt(alpha**2 + a**2 * beta**2 * lam**2 / 3)
        worst = max(worst, abs(radius - known) / known)
    return worst / float(np.finfo(dtype).eps)


def _settling(dtype: np.dtype) -> float:
    """How far a rollout of 300 rounds ends from softmax(kappa P mu), the closed form at lam = 0, in roundings."""
    import ipodyn

    P = jnp.asarray(ipodyn.problems.three_cycle(0.4), dtype)
    mu = jnp.asarray([0.5, 0.3, 0.2], dtype)
    loop = ipodyn.MRS(P, alpha=0.5, beta=2.0, lam=0.0, pi_0=mu)
    weights = np.exp(2.0 / (1 - 0.5) * (np.asarray(P, np.float64) @ np.asarray(mu, np.float64)))
    final = np.asarray(ipodyn.rollout(loop, num_steps=300).final, np.float64)
    return float(np.abs(final - weights / weights.sum()).max() / np.finfo(dtype).eps)


def checks() -> Iterator[tuple[str, bool, str]]:
    """(what, whether it holds, the figure) for answers that are known in closed form, in each precision."""
    for dtype in (np.dtype(np.float32), np.dtype(np.float64)):
        with _precision(dtype):
            for what, miss in (("three-cycle's radius", _three_cycle(dtype)), ("rollout at lam 0", _settling(dtype))):
                yield f"{what}, {dtype}", bool(miss <= 64), f"{miss:.1f} roundings off the closed form"


def doctor() -> None:
    """What a report of a wrong number needs: versions, devices, settings, and whether known answers come out.

    Exit code 2 if one of them does not.
    """
    rows = list(versions())
    rows += [("devices", ", ".join(f"{d.platform} {d.device_kind}" for d in jax.devices()))]
    rows += [("cores", str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()))]
    rows += [(name, os.environ[name]) for name in _VARIABLES if os.environ.get(name)]
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:<{width}}  {value}")
    failed = []
    for what, holds, figure in checks():
        print(f"{'ok' if holds else 'WRONG':<{width}}  {what}: {figure}")
        sys.stdout.flush()
        failed += [] if holds else [what]
    if failed:
        raise CommandError(f"known answers do not come out ({'; '.join(failed)}): report it with the lines above")
