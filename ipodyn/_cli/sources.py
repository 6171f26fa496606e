"""Where the preference matrices of a command come from."""

import dataclasses
import enum
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from .. import data, problems
from ..data import DataError, LoadReport, PreferenceSet
from .errors import CommandError, foreseen

_SETS = ("ratings", "pairs", "preferences", "helpsteer", "problem")
_COLUMNS = ("first", "second", "score", "weight", "winner", "ties")  # of --pairs, each an option of its name
_DRAWN = 100  # matrices of a random problem where the user names no number


@dataclasses.dataclass(frozen=True)
class Source:
    """The data options as the user gave them; None is not given."""

    ratings: pathlib.Path | None = None
    prompt: str | None = None
    attributes: str | None = None
    response: str | None = None
    pairs: pathlib.Path | None = None
    first: str | None = None
    second: str | None = None
    score: str | None = None
    weight: str | None = None
    winner: str | None = None
    wins: str | None = None
    ties: str | None = None
    by: str = "response"
    both_orders: bool = False
    preferences: pathlib.Path | None = None
    helpsteer: str | None = None
    problem: str | None = None
    strength: float | None = None
    group: int | None = None
    subsets: str = "disjoint"
    kind: str = "all"
    limit: int | None = None
    seed: int = 0

    @classmethod
    def of(cls, options: Mapping[str, Any], file: pathlib.Path | None = None) -> "Source":
        """Of all options of a command, by name: those that belong here; `file` is the option that its content says."""
        if file is not None:
            if any(options[name] is not None for name in _SETS):
                raise CommandError(f"give one set of data, not {file} and an option")
            options = {**options, _option_of(file, options["attributes"]): file}
        own = {field.name: options[field.name] for field in dataclasses.fields(cls) if field.name in options}
        return cls(**{name: value.value if isinstance(value, enum.Enum) else value for name, value in own.items()})

    def load(self) -> PreferenceSet:
        """The matrices, filtered and limited; raises `CommandError` or `DataError`, one line."""
        chosen = self._chosen()
        if self.limit is not None and self.limit < 1:
            raise CommandError(f"--limit is {self.limit}; keep at least 1 matrix")
        with foreseen(DataError, ImportError):
            loaded = getattr(self, f"_load_{chosen}")()
            loaded = loaded.kind(self.kind)
        if len(loaded) == 0:
            raise CommandError(
                f"none of the {loaded.report.matrices_made:,} matrices is of --kind {self.kind}; use --kind all or "
                "more data"
            )
        if self.limit is not None and self.limit < len(loaded):
            loaded = loaded.select(np.arange(self.limit), f"first {self.limit:,}")
        return loaded

    def _chosen(self) -> str:
        """The one data option that was given, else `synthetic`; options that belong to others are refused."""
        given = [name for name in _SETS if getattr(self, name) is not None]
        if len(given) > 1:
            raise CommandError(f"give one set of data, not {' and '.join('--' + name for name in given)}")
        chosen = given[0] if given else "synthetic"
        belongs = {
            "prompt": ("ratings", "pairs"),
            "attributes": ("ratings",),
            "response": ("ratings",),
            **{name: ("pairs",) for name in (*_COLUMNS, "wins", "both_orders")},
            "strength": ("problem",),
            "group": ("ratings", "pairs", "helpsteer", "problem"),
        }
        for name, owners in belongs.items():
            if getattr(self, name) not in (None, False) and chosen not in owners:
                words = " or ".join(f"--{owner}" for owner in owners)
                raise CommandError(
                    f"--{name.replace('_', '-')} goes with {words}, which is not given; add it or leave it out"
                )
        if self.by != "response" and chosen != "pairs":
            raise CommandError("--by goes with --pairs, which is not given; add it or leave it out")
        if self.subsets != "disjoint" and chosen not in ("ratings", "pairs", "helpsteer"):
            raise CommandError("--subsets goes with --ratings, --pairs or --helpsteer; leave it out")
        return chosen

    def _load_ratings(self) -> PreferenceSet:
        assert self.ratings is not None
        if self.prompt is None or self.attributes is None:
            missing = "--prompt COL" if self.prompt is None else "--attributes A,B,C"
            raise CommandError(f"--ratings needs {missing}: the column names in {self.ratings}")
        return data.load_ratings(
            self.ratings,
            prompt=self.prompt,
            attributes=[name.strip() for name in self.attributes.split(",")],
            response=self.response,
            group=4 if self.group is None else self.group,
            subsets=self.subsets,
            key=self.seed,
        )

    def _load_pairs(self) -> PreferenceSet:
        assert self.pairs is not None
        wins = None if self.wins is None else [name.strip() for name in self.wins.split(",")]
        if wins is not None and len(wins) != 2:
            raise CommandError(f"--wins is {self.wins!r}: name two columns, A,B, of the first's and the second's wins")
        return data.load_pairs(
            self.pairs,
            prompt=self.prompt,
            **{name: getattr(self, name) for name in _COLUMNS},
            wins=None if wins is None else (wins[0], wins[1]),
            by=self.by,
            group=self.group,
            subsets=self.subsets,
            both_orders=self.both_orders,
            key=self.seed,
        )

    def _load_preferences(self) -> PreferenceSet:
        assert self.preferences is not None
        return data.load_preferences(self.preferences)

    def _load_helpsteer(self) -> PreferenceSet:
        assert self.helpsteer is not None
        group = 4 if self.group is None else self.group
        return data.load_helpsteer(self.helpsteer, group=group, subsets=self.subsets, key=self.seed)

    def _load_synthetic(self) -> PreferenceSet:
        return data.synthetic_helpsteer(self.seed)

    def _load_problem(self) -> PreferenceSet:
        assert self.problem is not None
        return problem_set(self.problem, strength=self.strength, K=self.group, number=self.limit, seed=self.seed)


def _option_of(file: pathlib.Path, attributes: str | None) -> str:
    """What a file is without an option: arrays are matrices, a table with attributes is ratings, else pairs."""
    if file.suffix.lower() in (".npy", ".npz"):
        return "preferences"
    return "pairs" if attributes is None else "ratings"


# Name -> smallest and default K, and the builder of one matrix from a key, K and a strength.
_Builder = Callable[[jax.Array, int, float], jax.Array]
_FIXED: dict[str, tuple[int, int, _Builder]] = {
    "three_cycle": (3, 3, lambda key, K, strength: problems.three_cycle(strength)),
    "cycle": (3, 5, lambda key, K, strength: problems.cycle(K, strength)),
    "overshadowed_winner": (3, 4, lambda key, K, strength: problems.overshadowed_winner(K, strength)),
}
_RANDOM: dict[str, tuple[int, int, _Builder]] = {
    "random": (2, 4, lambda key, K, strength: problems.random(key, K)),
    "cyclic": (3, 4, lambda key, K, strength: problems.cyclic(key, K)),
    "with_condorcet_winner": (2, 4, lambda key, K, strength: problems.with_condorcet_winner(key, K)),
    "strongly_transitive": (2, 4, lambda key, K, strength: problems.strongly_transitive(key, K)),
    "bradley_terry": (2, 4, lambda key, K, strength: problems.bradley_terry(jax.random.normal(key, (K,)))),
    "thurstone": (2, 4, lambda key, K, strength: problems.thurstone(jax.random.normal(key, (K,)))),
}


def problem_set(
    name: str, *, strength: float | None = None, K: int | None = None, number: int | None = None, seed: int = 0
) -> PreferenceSet:
    """A named problem: one matrix of a fixed one, `number` of a random one."""
    if name not in {**_FIXED, **_RANDOM}:
        raise CommandError(f"unknown --problem {name!r}: choose {', '.join([*_FIXED, *_RANDOM])}")
    fixed = name in _FIXED
    least, default, builder = {**_FIXED, **_RANDOM}[name]
    if strength is not None and not fixed:
        raise CommandError(f"--strength goes with --problem {', '.join(_FIXED)}; leave it out for {name}")
    strength = 0.3 if strength is None else strength
    if not 0 < strength <= 0.5:
        raise CommandError(f"--strength is {strength:g}: the margin of a win is above 0 and at most 0.5")
    K = default if K is None else K
    if least > K or (name == "three_cycle" and K != 3):
        raise CommandError(f"--group is {K}: --problem {name} has {'exactly' if default == 3 else 'at least'} {least}")
    count = 1 if fixed else number or _DRAWN
    with foreseen(ValueError):  # an even cycle
        if fixed:
            P = np.asarray(builder(jax.random.key(seed), K, strength), np.float64)[None]
        else:
            keys = jax.random.split(jax.random.key(seed), count)
            P = np.asarray(jax.jit(jax.vmap(lambda key: builder(key, K, strength)))(keys), np.float64)
    words = f"strength {strength:g}" if fixed else f"{count:,} drawn with seed {seed}"
    return PreferenceSet(
        P=(P + 1 - P.swapaxes(-1, -2)) / 2,  # complementary to the last bit, whatever precision made it
        prompts=np.arange(count),
        responses=np.tile(np.arange(K), (count, 1)),
        report=LoadReport(count, count, {}, count, count, {}, count, unit="matrices"),
        source=f"synthetic problem {name}, K = {K}, {words}",
        synthetic=True,
    )
