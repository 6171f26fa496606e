"""Many processes on one map: independent tasks of a job array, or the processes of one JAX job."""

import collections
import dataclasses
import time

import jax

from .._maps.store import Region, Store
from .errors import CommandError, foreseen

_GLANCE = 0.5  # seconds between looks at what the other processes have finished


@dataclasses.dataclass(frozen=True)
class Part:
    """Which part of the regions this process computes: `index` = 0 .. count - 1."""

    index: int = 0
    count: int = 1
    together: bool = False  # the parts are processes of one JAX job, which ends as a whole

    @property
    def leads(self) -> bool:
        """Whether this process speaks for the job."""
        return not self.together or self.index == 0

    @property
    def words(self) -> str:
        if self.count == 1:
            return ""
        return f"process {self.index} of {self.count}" if self.together else f"task {self.index + 1} of {self.count}"

    def regions(self, store: Store) -> list[Region]:
        return store.regions_of(self.index, self.count)

    def check_folder(self, store: Store) -> None:
        """All processes must see one folder: a collective operation on what its manifest calls the run."""
        devices = collections.Counter(device.process_index for device in jax.devices())
        if not self.together or len(set(devices.values())) > 1:  # the operation wants equally many devices everywhere
            return
        from jax.experimental import multihost_utils

        try:
            multihost_utils.sync_global_devices(f"ipodyn map {store.run}")
        except AssertionError:
            raise CommandError(
                f"the processes do not share the folder {store.place.name}; put --out on a file system that all of "
                "them see, or in a bucket"
            ) from None

    def wait(self, store: Store) -> None:
        """Until the other processes have finished their regions; if one dies, JAX ends this one too.

        By a look at the folder: collective operations have time limits of their own, and parts differ in length.
        """
        while self.together and store.missing():
            time.sleep(_GLANCE)


@dataclasses.dataclass(frozen=True)
class Sharing:
    """The options on many processes as the user gave them."""

    task: str | None = None
    distributed: bool = False
    coordinator: str | None = None
    num_processes: int | None = None
    process_id: int | None = None

    def check(self) -> None:
        """What can be said before anything is started."""
        self._task()
        address = {"--coordinator": self.coordinator, "--num-processes": self.num_processes}
        address["--process-id"] = self.process_id
        given = [name for name, value in address.items() if value is not None]
        if self.task is not None and (self.distributed or given):
            other = given[0] if given else "--distributed"
            raise CommandError(f"--task is for independent processes, {other} for one JAX job; give one of them")
        if given and len(given) < len(address):
            missing = next(name for name in address if name not in given)
            raise CommandError(
                f"{given[0]} needs {missing} too; where the cluster says all three, give --distributed alone"
            )
        if self.coordinator is not None and not self.coordinator.rpartition(":")[2].isdigit():
            raise CommandError(f"--coordinator is {self.coordinator!r}: write HOST:PORT, such as 10.0.0.1:1234")
        if self.num_processes is not None and self.process_id is not None:
            if self.num_processes < 1:
                raise CommandError(f"--num-processes is {self.num_processes}; start at least 1")
            if not 0 <= self.process_id < self.num_processes:
                raise CommandError(
                    f"--process-id is {self.process_id}; with --num-processes {self.num_processes} they run from 0 to "
                    f"{self.num_processes - 1}"
                )

    def _task(self) -> Part:
        if self.task is None:
            return Part()
        part, _, parts = self.task.partition("/")
        if not (part.isdigit() and parts.isdigit() and 1 <= int(part) <= int(parts)):
            raise CommandError(f"--task is {self.task!r}: write I/N with I from 1 to N, such as 3/8")
        return Part(int(part) - 1, int(parts))

    def join(self) -> Part:
        """This process's part; connects it with the others of a JAX job. Before any JAX computation."""
        if not self.distributed and self.coordinator is None:
            return self._task()
        if not jax.distributed.is_initialized():
            if jax.config.values.get("jax_cpu_collectives_implementation") in (None, "none"):
                jax.config.update("jax_cpu_collectives_implementation", "gloo")
            with foreseen(ValueError, RuntimeError, prefix="--distributed: "):
                jax.distributed.initialize(self.coordinator, self.num_processes, self.process_id)
        return Part(jax.process_index(), jax.process_count(), together=True)
