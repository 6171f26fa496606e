"""What every figure is made from: one configuration with all sizes, and the matrices; and what it hands back."""

import dataclasses
import functools
import hashlib
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import DPO, IPO, AbstractObjective, stability_map

if TYPE_CHECKING:
    import matplotlib.figure

ProgressCallback = Callable[[int, int], None]  # (done, in all)
WORDS = {"cyclic": "cyclic", "st": "strongly transitive"}


@dataclasses.dataclass(frozen=True)
class Panel:
    """One setting of a loop: what the picture calls it, and its parameters."""

    name: str
    alpha: float
    product: float  # beta * lam


@dataclasses.dataclass(frozen=True)
class Series:
    """A parameter that moves over `values` while the others stand; trajectories are drawn at `shown`."""

    values: tuple[float, ...]
    shown: tuple[float, ...]
    alpha: float
    beta: float
    lam: float


def _steps(first: float, last: float, number: int) -> tuple[float, ...]:
    return tuple(round(float(value), 6) for value in np.linspace(first, last, number))


@dataclasses.dataclass(frozen=True)
class Config:
    """All sizes and parameters of the figures, at the values of the paper where it states them.

    `beta` is the strength of the preference signal, 1 over the KL coefficient; `products` are those of beta and lam.
    """

    seed: int = 0
    dtype: str = "float32"
    lam: float = 0.8
    rounds: int = 3000
    alphas: tuple[float, ...] = _steps(0.0, 0.95, 20)
    products: tuple[float, ...] = _steps(0.5, 10.0, 20)
    # Near ties a Bradley-Terry score is four times P - 1/2: at this fraction of beta * lam, DPO feels what IPO feels.
    dpo_beta_factor: float = 0.25
    matrices: int = 0  # largest number of each kind; 0 is all
    dpo_matrices: int = 600  # the same where DPO is rolled out, a fit in every round; 0 is all
    evolution_rounds: Mapping[str, int] = dataclasses.field(default_factory=lambda: {"cyclic": 100, "st": 30})
    evolution: Mapping[str, tuple[Panel, ...]] = dataclasses.field(
        default_factory=lambda: {
            "cyclic": (Panel("baseline", 0.5, 1.6), Panel("larger α", 0.99, 1.6), Panel("larger βλ", 0.5, 9.6)),
            "st": (Panel("baseline", 0.5, 1.6), Panel("larger α", 0.95, 1.6), Panel("larger βλ", 0.5, 9.6)),
        }
    )
    series: Mapping[str, Series] = dataclasses.field(
        default_factory=lambda: {
            # finest where a loop of this beta loses stability
            "alpha": Series(
                (*_steps(0.0, 0.9, 10), 0.925, 0.95, 0.96, 0.97, 0.975, 0.98, 0.985, 0.99, 0.995, 1.0),
                (0.0, 0.5, 0.95, 0.99),
                0.5,
                2.0,
                0.8,
            ),
            "beta": Series(_steps(0.5, 12.0, 24), (0.5, 4.0, 8.0, 12.0), 0.8, 2.0, 0.8),
            "lam": Series(_steps(0.0, 1.0, 21), (0.0, 0.3, 0.7, 1.0), 0.8, 8.0, 0.8),
        }
    )
    num_pairs: int = 100  # labelled pairs a round
    ridge: float = 1.0  # of the empirical DPO fit
    trajectories: int = 64  # of one loop
    finite_matrices: int = 64  # of each kind, in maps and series of finite samples
    finite_rounds: int = 1000
    phase_setting: Panel = Panel("oscillating", 0.9, 9.6)
    phase_rounds: int = 1000
    skew: float = 0.9  # mass on the best response at the end of the path of sampling distributions
    path_points: int = 21
    one_shot_beta: float = 5.0

    def fingerprint(self) -> str:
        return hashlib.sha256(repr(self).encode()).hexdigest()


PAPER = Config()
QUICK = Config(
    rounds=200,
    alphas=_steps(0.0, 0.9, 4),
    products=_steps(0.5, 9.5, 4),
    matrices=8,
    series={
        "alpha": Series(_steps(0.0, 1.0, 5), (0.0, 1.0), 0.5, 2.0, 0.8),
        "beta": Series(_steps(0.5, 12.5, 5), (0.5, 12.5), 0.8, 2.0, 0.8),
        "lam": Series(_steps(0.0, 1.0, 5), (0.0, 1.0), 0.8, 8.0, 0.8),
    },
    trajectories=16,
    finite_matrices=2,
    finite_rounds=100,
    phase_rounds=200,
    path_points=5,
)


# (alpha, beta * lam) at lam = 0.8 of the pictures that are to show an oscillation.
TURNING = ((0.5, 9.6), (0.9, 9.6), (0.99, 1.6))


def _turns(P: np.ndarray) -> np.ndarray:
    """(M,): in how many of `TURNING` the fixed point of MRS-IPO is unstable."""
    alphas, products = (sorted({pair[place] for pair in TURNING}) for place in (0, 1))
    betas = np.array(products) / 0.8
    dataset = stability_map(P.astype(np.float32), alpha=alphas, beta=betas, lam=0.8, rollouts=False)
    unstable = np.asarray(dataset["radius"]) > 1
    cells = [unstable[:, alphas.index(alpha), products.index(product)] for alpha, product in TURNING]
    return np.sum(cells, axis=0)


@dataclasses.dataclass(frozen=True)
class Material:
    """The preference matrices of a run, (M, K, K) in float64, by structure, and where they come from."""

    all: np.ndarray
    cyclic: np.ndarray
    st: np.ndarray
    source: str
    synthetic: bool

    def of(self, structure: str) -> np.ndarray:
        """Those of a structure: "cyclic", "st" or "all"."""
        return {"cyclic": self.cyclic, "st": self.st, "all": self.all}[structure]

    def limited(self, number: int) -> "Material":
        """At most the first `number` of each kind; 0 keeps them as they are."""
        if not number:
            return self
        cut = {name: self.of(name)[:number] for name in ("all", "cyclic", "st")}
        return dataclasses.replace(self, **cut)

    def fingerprint(self) -> str:
        digest = hashlib.sha256(f"{self.source}{self.synthetic}".encode())
        for name in ("all", "cyclic", "st"):
            array = np.ascontiguousarray(self.of(name))
            digest.update(f"{array.dtype}{array.shape}".encode() + array.tobytes())
        return digest.hexdigest()

    def representative(self, structure: str) -> int:
        """Index of the matrix whose trajectories are drawn: one of median strength ||P - 1/2||.

        Among cyclic ones, of those whose fixed point is unstable in most of `TURNING`: in many sets most cycles are
        weak or below a winner. Among strongly transitive ones, of those without ties in their order: elsewhere lines
        lie on one another.
        """
        return self._representatives[structure]

    @functools.cached_property
    def _representatives(self) -> dict[str, int]:
        indices = {}
        for structure in ("cyclic", "st"):
            P = self.of(structure)
            if len(P) == 0:
                continue
            if structure == "cyclic":
                turns = _turns(P)
                places = np.flatnonzero(turns == turns.max())
            else:
                apart = np.diff(np.sort(P.mean(axis=2), axis=1), axis=1).min(axis=1) > 1e-6
                places = np.flatnonzero(apart) if apart.any() else np.arange(len(P))
            strength = np.linalg.norm(P[places] - 0.5, ord=2, axis=(1, 2))
            indices[structure] = int(places[np.argsort(strength, kind="stable")[(len(places) - 1) // 2]])
        return indices

    def tag(self) -> str:
        """The source as file names give it, such as "synthetic-ratings-in-helpsteers-shape-seed-0"."""
        words = re.findall(r"[a-z0-9]+", self.source.lower().replace("'", ""))
        if self.synthetic and words[:1] != ["synthetic"]:
            words = ["synthetic", *words]
        return textwrap.shorten(" ".join(words), 60, placeholder="").replace(" ", "-") or "data"

    def heading(self) -> str:
        """The source as titles give it."""
        if not self.synthetic:
            return self.source
        return self.source if self.source.startswith("SYNTHETIC") else f"SYNTHETIC data: {self.source}"


@dataclasses.dataclass(frozen=True)
class Made:
    """A finished figure: its numbers as columns, what claims are judged by, a description, and how to draw it."""

    columns: Mapping[str, Sequence[Any] | np.ndarray]
    findings: Mapping[str, Any]
    words: str
    draw: Callable[[], "matplotlib.figure.Figure"]


def objective_of(variant: str) -> AbstractObjective:
    """The objective of a variant: "ipo", "dpo", "dpo-wide", "ipo-finite" or "dpo-finite"."""
    return DPO() if variant.startswith("dpo") else IPO()


def is_finite(variant: str) -> bool:
    return variant.endswith("-finite")


def matrices_for(config: Config, material: Material, structure: str, variant: str) -> np.ndarray:
    """The matrices (M, K, K) of a map or series, in the dtype of the run: all, or the first ones up to a limit."""
    limit = config.finite_matrices if is_finite(variant) else config.dpo_matrices if variant.startswith("dpo") else 0
    P = material.of(structure)
    return P[: limit or len(P)].astype(config.dtype)


def beta_factor(variant: str, config: Config) -> float:
    """The factor on beta for this variant; "dpo-wide" takes that of IPO."""
    return config.dpo_beta_factor if variant in ("dpo", "dpo-finite") else 1.0


def loop_words(variant: str, config: Config) -> str:
    """What a title says about the loop. All start at `pi_0`, the uniform policy, as the paper's do."""
    name = f"MRS-{variant[:3].upper()}, start uniform"
    return f"{name}, {config.num_pairs} labelled pairs a round" if is_finite(variant) else name
