"""The questions, one file each: a function of the settings that yields rows."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Settings:
    """How long to measure: `repeats` interleaved pairs; `quick` shrinks the jobs and leaves most sizes out."""

    repeats: int = 7
    quick: bool = False

    @property
    def scale(self) -> float:
        return 0.02 if self.quick else 1.0

    def matrices(self, full: int) -> int:
        return max(1, round(full * self.scale))
