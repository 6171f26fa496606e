"""C++ with AVX-512 or AVX2 intrinsics and OpenMP, built with the system's compiler."""

import ctypes
import functools
import os
import pathlib
import shutil
import subprocess
import tempfile

import numpy as np

from ..jobs import Job, Statistics
from . import Runner, Unavailable

NAME = "C++ intrinsics"
SOURCE = pathlib.Path(__file__).with_name("mrs_ipo.cpp")
SIZES = (3, 4, 8, 16, 64)
EXTRA_OPTIONS: list[str] = []  # -DSMALL_ONLY leaves out K = 16 and 64, which take long to compile


def compiler() -> str:
    """The C++ compiler: `CXX`, or the first of the usual names."""
    for name in (os.environ.get("CXX"), "g++", "clang++", "c++"):
        if name and (found := shutil.which(name)):
            return found
    raise Unavailable("no C++ compiler found")


@functools.cache
def library() -> ctypes.CDLL:
    command = compiler()
    folder = tempfile.TemporaryDirectory(prefix="ipodyn_benchmark_")
    target = pathlib.Path(folder.name) / "mrs_ipo.so"
    options = ["-O3", "-march=native", "-fopenmp", "-std=c++17", "-shared", "-fPIC", "-w", *EXTRA_OPTIONS]
    built = subprocess.run([command, *options, str(SOURCE), "-o", str(target)], capture_output=True, text=True)
    if built.returncode:
        raise Unavailable(f"{command} failed: {built.stderr.strip().splitlines()[-1:]}")
    loaded = ctypes.CDLL(str(target))
    folder.cleanup()  # loaded: the file is not needed any more
    loaded.mrs_ipo_instructions.restype = ctypes.c_char_p
    return loaded


def instructions() -> str:
    """The instruction set it was built for."""
    return library().mrs_ipo_instructions().decode()


def _pointer(array: np.ndarray) -> ctypes.c_void_p:
    return array.ctypes.data_as(ctypes.c_void_p)


def exponentials(x: np.ndarray) -> np.ndarray:
    """Its exponential at `x` <= 0, float32, of a size that is a multiple of 16."""
    y = np.empty_like(x)
    library().mrs_ipo_exp(ctypes.c_long(x.size), _pointer(x), _pointer(y))
    return y


def prepare(job: Job, threads: int | None = None) -> Runner:
    if job.K not in SIZES:
        raise Unavailable(f"compiled for K in {SIZES}, not {job.K}")
    program = library()
    arrays = job.arrays()
    count = len(os.sched_getaffinity(0)) if threads is None else threads

    def run() -> Statistics:
        found = Statistics(np.empty_like(arrays.alpha), np.empty_like(arrays.alpha))
        unknown = program.mrs_ipo(
            ctypes.c_int(job.K),
            ctypes.c_long(job.num_trajectories),
            ctypes.c_int(job.num_steps),
            *(_pointer(x) for x in (*arrays, *found)),
            ctypes.c_int(count),
        )
        if unknown:
            raise Unavailable(f"not compiled for K = {job.K}")
        return found

    return run
