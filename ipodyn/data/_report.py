"""What a loader did with every row it met, and the error it raises when it cannot go on."""

import dataclasses
import json
from collections.abc import Mapping


class DataError(ValueError):
    """Data that cannot be used: one line that names the file, column or row, and the cure."""


@dataclasses.dataclass(frozen=True)
class LoadReport:
    """The account of a load: every row and every prompt read is either used or dropped for a stated reason.

    - `rows_read`, `rows_used`, `rows_dropped`: rows of the table; `rows_dropped` counts by reason.
    - `prompts_read`, `prompts_used`, `prompts_dropped`: the same for prompts; a prompt is used if it gave a
      matrix.
    - `matrices_made`: preference matrices before any filter.
    - `filters`: `(name, kept)` of each filter applied since, in order.
    - `notes`: what else was decided on the way.
    - `unit`: what a row is; matrices for array files, which have no rows.

    `str(report)` is a short text for people. The sums are checked on construction. A dataclass on the host: it holds
    words and whole numbers, and no array.

    >>> report = LoadReport(9, 8, {"left over after groups of 4": 1}, 2, 2, {}, 2)
    >>> print(report)
    rows      9 read, 8 used, 1 dropped
                1 left over after groups of 4
    prompts   2 read, 2 used, 0 dropped
    matrices  2 made
    """

    rows_read: int
    rows_used: int
    rows_dropped: Mapping[str, int]
    prompts_read: int
    prompts_used: int
    prompts_dropped: Mapping[str, int]
    matrices_made: int
    filters: tuple[tuple[str, int], ...] = ()
    notes: tuple[str, ...] = ()
    unit: str = "rows"

    def __post_init__(self) -> None:
        for noun in ("rows", "prompts"):
            read, used = getattr(self, f"{noun}_read"), getattr(self, f"{noun}_used")
            dropped = sum(getattr(self, f"{noun}_dropped").values())
            if read != used + dropped:
                raise ValueError(f"{noun}: {read} read, but {used} used and {dropped} dropped")

    @property
    def responses_left_over(self) -> int:
        """Responses of used prompts that filled no group."""
        return sum(count for reason, count in self.rows_dropped.items() if reason.startswith("left over"))

    def filtered(self, name: str, kept: int) -> "LoadReport":
        """The same report with one more filter noted."""
        return dataclasses.replace(self, filters=(*self.filters, (name, kept)))

    def to_json(self) -> str:
        """The report as JSON, for the attributes of an output file."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "LoadReport":
        """The report that `to_json` wrote."""
        fields = json.loads(text)
        fields["filters"] = tuple((str(name), int(kept)) for name, kept in fields["filters"])
        fields["notes"] = tuple(fields["notes"])
        return cls(**fields)

    def __str__(self) -> str:
        lines = []
        for noun, label in (("rows", self.unit), ("prompts", "prompts")):
            dropped: Mapping[str, int] = getattr(self, f"{noun}_dropped")
            lines.append(
                f"{label:<9} {getattr(self, f'{noun}_read'):,} read, {getattr(self, f'{noun}_used'):,} used, "
                f"{sum(dropped.values()):,} dropped"
            )
            lines += [f"{'':<12}{count:,} {reason}" for reason, count in dropped.items()]
        lines.append(f"matrices  {self.matrices_made:,} made")
        before = self.matrices_made
        for name, kept in self.filters:
            lines.append(f"{'':<12}{name}: {kept:,} kept, {before - kept:,} removed")
            before = kept
        lines += [f"note      {note}" for note in self.notes]
        return "\n".join(lines)


def counted(reasons: Mapping[str, int]) -> dict[str, int]:
    """The reasons that occurred."""
    return {reason: count for reason, count in reasons.items() if count}
