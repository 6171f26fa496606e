"""Maps by real processes: killed at any moment, interrupted, or connected, they leave the same store."""

import os
import pathlib
import random
import signal
import socket
import subprocess
import sys
import time

import pytest

pytest.importorskip("typer")
pytest.importorskip("zarr")

from processes import assert_identical, finish, start

MATRICES, MANY = 16, 60  # one a region
JOB = ["map", "--problem", "random", "--alpha", "0:0.9:2", "--beta", "1:9:3", "--rounds", "200"]


def launch(work, out, *more, matrices=MATRICES):
    return start([*JOB, "--limit", str(matrices), "--out", str(work / out), *more], work / "compiled", points=1)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder with the map of a run that nothing disturbed, in `whole`."""
    folder = tmp_path_factory.mktemp("processes")
    code, _, err = finish(launch(folder, "whole"))
    assert code == 0, err
    return folder


def marks(out: pathlib.Path) -> int:
    """Finished regions."""
    return len(list(out.glob("regions/[0-9]*.json")))


def reached(process: subprocess.Popen, what) -> bool:
    """Waits until something can be seen in the folder; False if the process ended before."""
    deadline = time.monotonic() + 200
    while not what():
        if process.poll() is not None:
            return False
        assert time.monotonic() < deadline, "no progress"
        time.sleep(0.001)
    return True


def kill(process: subprocess.Popen, what, with_signal=signal.SIGKILL) -> tuple[int, str, str]:
    assert reached(process, what), process.communicate()
    process.send_signal(with_signal)
    return finish(process)


def assert_resumes(work, out, kept, whole="whole", matrices=MATRICES):
    """The next run takes over what is there, computes the rest, and ends as if nothing had been."""
    code, printed, err = finish(launch(work, out, matrices=matrices))
    assert code == 0, err
    assert f"has {kept} of {matrices} regions" in printed
    assert_identical(work / out, work / whole)
    assert (work / out / "map.png").exists()


@pytest.mark.slow
def test_interrupted_and_killed(work):
    """Ctrl-C is one line with the count done and exit code 130; a kill then loses no finished region."""
    out = work / "interrupted"
    code, _, err = kill(launch(work, "interrupted"), lambda: marks(out) >= 3, signal.SIGINT)
    assert code == 130
    assert f"keeps {marks(out)} of {MATRICES} regions" in err and err.count("\n") == 1 and "Traceback" not in err
    before = marks(out)
    code, _, _ = kill(launch(work, "interrupted"), lambda: marks(out) >= before + 3)
    assert code == -signal.SIGKILL
    assert before + 3 <= marks(out) < MATRICES
    assert_resumes(work, "interrupted", kept=marks(out))


@pytest.mark.slow
def test_twenty_kills(work):
    """At random moments: while the store is made, between regions and in the middle of them."""
    assert finish(launch(work, "whole_of_many", matrices=MANY))[0] == 0
    draw = random.Random(0)
    out = work / "killed"
    moments = [out.exists, (out / "run.json").exists, (out / "map.zarr").exists]
    for number in range(20):
        before, more = marks(out), draw.choice([0, 1, 1, 2])

        def advanced(least: int = before + more) -> bool:
            return marks(out) >= least

        process = launch(work, "killed", matrices=MANY)
        assert reached(process, moments[number] if number < len(moments) else advanced)
        until = time.monotonic() + draw.uniform(0, 0.03)  # anywhere within a region
        while time.monotonic() < until:
            pass
        process.kill()
        assert finish(process)[0] == -signal.SIGKILL
        assert before <= marks(out) < MANY
    assert_resumes(work, "killed", kept=marks(out), whole="whole_of_many", matrices=MANY)


@pytest.mark.slow
def test_killed_while_the_tables_are_written(work):
    out = work / "late"
    process = launch(work, "late")
    assert kill(process, lambda: marks(out) == MATRICES)[0] == -signal.SIGKILL
    assert not (out / "map.png").exists()
    code, printed, _ = finish(launch(work, "late"))
    assert code == 0 and "all regions" in printed
    assert_identical(out, work / "whole")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def job(work, outs):
    """Two processes of one JAX job on this machine."""
    address = ["--coordinator", f"127.0.0.1:{free_port()}", "--num-processes", "2"]
    together = [launch(work, out, *address, "--process-id", str(number)) for number, out in enumerate(outs)]
    return [finish(process) for process in together]


@pytest.mark.slow
def test_two_processes_of_one_job(work):
    (code0, out0, err0), (code1, out1, err1) = job(work, ["job", "job"])
    assert (code0, code1) == (0, 0), err0 + err1
    assert f"process 0 of 2: {MATRICES // 2} of {MATRICES} regions" in out0 and "map.png" in out0
    assert "map.png" not in out1 and "regions" not in out1  # one process speaks
    assert_identical(work / "job", work / "whole")


@pytest.mark.slow
def test_a_job_without_a_common_folder(work):
    for code, _, err in job(work, ["here", "there"]):
        assert code == 2
        assert "do not share the folder" in err and "Traceback" not in err


def test_float64_is_switched_on_by_the_command(tmp_path):
    """In a process that computes in float32 unless told otherwise."""
    program = f"""
from ipodyn._cli.app import run
arguments = ["--problem", "three_cycle", "--alpha", "0.5", "--beta", "1", "--analytic", "--dtype", "float64"]
assert run(["map", *arguments, "--out", {str(tmp_path / "map")!r}]) == 0
import jax.numpy
assert jax.numpy.ones(()).dtype == "float64"
"""
    environment = os.environ | {"JAX_ENABLE_X64": "0"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert "float64 on" in done.stdout
