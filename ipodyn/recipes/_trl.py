"""TRL's settings as recipes, and back."""

import dataclasses
from typing import Any

import jax.numpy as jnp

from .._numerics.checks import check_alpha, check_lam, check_positive
from .._objectives.dpo import DPO
from .._objectives.ipo import IPO
from ._cube import Recipe, data_words, make_recipe, reference_words

# TRL's `loss_type` -> the objective with that loss.
LOSS_TYPES = ("ipo", "sigmoid")


@dataclasses.dataclass(frozen=True)
class TrlSettings:
    """Settings of a TRL preference trainer, and what the script around it does.

    - `beta`: TRL's, the KL coefficient: larger = closer to the reference. - `loss_type`: "ipo" or "sigmoid".
    - `reference`: share of the current policy in the reference of each round, 0 or "first" checkpoint to 1 "last".
    - `on_policy`: share of the pairs sampled from the current policy, 0 fixed data (`DPOTrainer`) to 1
      (`OnlineDPOTrainer`).

    `str(settings)` says which way each number points.
    """

    beta: float
    loss_type: str
    reference: float
    on_policy: float

    def arguments(self) -> dict[str, Any]:
        """`{"beta": ..., "loss_type": ...}`, the keyword arguments of `DPOConfig` or `OnlineDPOConfig`."""
        return {"beta": self.beta, "loss_type": self.loss_type}

    def describe(self) -> str:
        """The settings in words, one line a number."""
        return "\n".join(
            [
                f"TRL, loss_type {self.loss_type!r}",
                f"  beta = {self.beta:.6g}  KL coefficient (up: closer to the reference); "
                f"ipodyn's beta is {1 / self.beta:.6g} (up: further from it)",
                f"  {reference_words(self.reference)}: ref_model of each round ({self.reference:g} of the current)",
                f"  {data_words(self.on_policy)} ({self.on_policy:g} of them)",
            ]
        )

    def __str__(self) -> str:
        return self.describe()


def from_trl(
    *,
    beta: float | int = 0.1,
    loss_type: str = "sigmoid",
    reference: float | int | str = "first",
    on_policy: float | int = 0.0,
) -> Recipe:
    """The recipe that a TRL trainer follows when its rounds are iterated; its `beta` is turned over, 1 / beta.

    - `beta` > 0: TRL's, the KL coefficient. - `loss_type`: "sigmoid" is `DPO()`, "ipo" is `IPO()`; no other.
    - `reference`: "first" checkpoint, "last" checkpoint, or the share in [0, 1] of the current policy (in log space).
    - `on_policy`: share of pairs sampled from the current policy: 0 is `DPOTrainer`, 1 `OnlineDPOTrainer`.

    A reference that is itself a moving average over rounds (TRL's `sync_ref_model` with a mixup below 1) is no point of
    the cube: it has a memory, while this mixes the current policy with the first reference.

    >>> import ipodyn
    >>> ipodyn.recipes.from_trl(beta=0.1, loss_type="ipo", reference="last", on_policy=1.0).point()
    {'alpha': 1.0, 'beta': 10.0, 'lam': 1.0}
    """
    check_positive(beta, "beta", "it is TRL's, the KL coefficient; its default is 0.1")
    if loss_type not in LOSS_TYPES:
        raise ValueError(f"`loss_type` is {loss_type!r}; only {' and '.join(LOSS_TYPES)} are objectives here.")
    if isinstance(reference, str):
        if reference not in ("first", "last"):
            raise ValueError(f"`reference` is {reference!r}; say 'first', 'last' or a share from 0 to 1.")
        reference = 0.0 if reference == "first" else 1.0
    return make_recipe(
        "TRL",
        f"beta {beta:g}, loss_type {loss_type!r}",
        IPO() if loss_type == "ipo" else DPO(),
        alpha=float(check_alpha(reference, name="reference")),
        beta=1 / beta,
        lam=float(check_lam(on_policy, name="on_policy")),
    )


def to_trl(recipe: Recipe) -> TrlSettings:
    """The settings of TRL for a recipe, the inverse of `from_trl`.

    - `recipe`: with numbers, not traced values. Raises `ValueError` for an objective that TRL does not name.

    >>> import ipodyn
    >>> print(ipodyn.recipes.to_trl(ipodyn.recipes.online(beta=10.0, objective=ipodyn.DPO())))
    TRL, loss_type 'sigmoid'
      beta = 0.1  KL coefficient (up: closer to the reference); ipodyn's beta is 10 (up: further from it)
      the reference stays at the start: ref_model of each round (0 of the current)
      all pairs are sampled from the current policy (1 of them)
    """
    if isinstance(recipe.objective, IPO):
        loss_type = "ipo"
    elif isinstance(recipe.objective, DPO):
        loss_type = "sigmoid"
    else:
        raise ValueError(f"TRL has no `loss_type` for {type(recipe.objective).__name__}; give IPO or DPO.")
    alpha, beta, lam = (float(jnp.asarray(x)) for x in (recipe.alpha, recipe.beta, recipe.lam))
    return TrlSettings(1 / beta, loss_type, alpha, lam)
