r"""TRL's settings as recipes, and back.

TRL's `beta` is a KL coefficient. `loss_type="sigmoid"` compares beta times the difference of two log-ratios, so that
the strength of the signal is 1 / beta. `loss_type="ipo"` of `DPOTrainer` first divides each log-ratio by the number of
tokens of its completion: pulling the log-ratio per token to 1 / (2 beta) pulls that of the whole completion to
tokens / (2 beta), so that the strength is tokens / beta. (`OnlineDPOTrainer` sums: there, tokens is 1.)
`loss_type="sigmoid_norm"` is the sigmoid of averages in the same way. `loss_type="sppo_hard"` pulls each log-ratio to
+-1 / (2 beta): in the mean over pairs to (P mu - 1/2) / beta, IPO's optimum with strength 1 / beta.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp

from .._numerics.checks import check_alpha, check_lam, check_positive
from .._objectives.dpo import DPO
from .._objectives.ipo import IPO
from .._objectives.objective import AbstractObjective
from ._cube import Recipe, data_words, make_recipe, reference_words

# TRL's `loss_type` -> (the objective with that optimum, whether it averages over the tokens of a completion).
_LOSSES: dict[str, tuple[AbstractObjective, bool]] = {
    "ipo": (IPO(), True),
    "sigmoid": (DPO(), False),
    "sigmoid_norm": (DPO(), True),
    "sppo_hard": (IPO(), False),
}
LOSS_TYPES = tuple(_LOSSES)
AVERAGED = tuple(name for name, (_, averages) in _LOSSES.items() if averages)
WHY_TOKENS = (
    "TRL's ipo and sigmoid_norm divide log-ratios by the tokens of the completion, so that beta at the level of whole "
    "responses is tokens / beta; give the typical completion length, or 1 for OnlineDPOTrainer, which sums"
)
ONE_ROUND = (
    "the reference stays and the data are fixed: one round, not a loop, so nothing can turn; it iterates with the last "
    "checkpoint as reference, or with pairs sampled from the current policy"
)


@dataclasses.dataclass(frozen=True)
class TrlSettings:
    """Settings of a TRL preference trainer, and what the script around it does.

    - `beta`: TRL's, the KL coefficient: larger = closer to the reference. - `loss_type`: "ipo" or "sigmoid".
    - `reference`: fraction of the current policy in the reference of each round, 0 or "first" checkpoint to 1 "last".
    - `on_policy`: fraction of the pairs sampled from the current policy, 0 fixed data (`DPOTrainer`) to 1
      (`OnlineDPOTrainer`). - `tokens`: completion length that IPO's `beta` is meant for, or None.

    `str(settings)` says which way each number points.
    """

    beta: float
    loss_type: str
    reference: float
    on_policy: float
    tokens: float | None = None

    def arguments(self) -> dict[str, Any]:
        """`{"beta": ..., "loss_type": ...}`, the keyword arguments of `DPOConfig` or `OnlineDPOConfig`."""
        return {"beta": self.beta, "loss_type": self.loss_type}

    def describe(self) -> str:
        """The settings in words, one line a number."""
        strength = (self.tokens or 1.0) / self.beta
        length = f" at {self.tokens:g} tokens a completion" if self.tokens is not None else ""
        return "\n".join(
            [
                f"TRL, loss_type {self.loss_type!r}",
                f"  beta = {self.beta:.6g}  KL coefficient (up: closer to the reference); "
                f"ipodyn's beta is {strength:.6g}{length} (up: further from it)",
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
    tokens: float | int | None = None,
    reference: float | int | str = "first",
    on_policy: float | int = 0.0,
) -> Recipe:
    r"""The recipe that a TRL trainer follows when its rounds are iterated.

    \(\beta = 1/\beta_{TRL}\) for "sigmoid" and "sppo_hard", \(\beta = \mathrm{tokens}/\beta_{TRL}\) for "ipo" and
    "sigmoid_norm".

    - `beta` > 0: TRL's, the KL coefficient. - `loss_type`: "sigmoid" and "sigmoid_norm" are `DPO()`, "ipo" and
      "sppo_hard" are `IPO()`; no other.
    - `tokens` > 0: length of a completion, needed for "ipo" and "sigmoid_norm", which average over tokens in
      `DPOTrainer`. One number stands for all; where lengths differ, each log-ratio moves in proportion to its own. 1
      for `OnlineDPOTrainer`, which sums. The others sum too and do not depend on it.
    - `reference`: "first" checkpoint, "last" checkpoint, or a fraction in [0, 1] of the current policy (in log space).
    - `on_policy`: fraction of pairs sampled from the current policy: 0 is `DPOTrainer`, 1 `OnlineDPOTrainer`.

    TRL's defaults are one round, not a loop: the reference stays and the data are fixed (`recipe.rounds` is 1). A
    reference that is itself a moving average over rounds (TRL's `sync_ref_model` with a mixup below 1) is no point of
    the cube: it has a memory, while this mixes the current policy with the first reference. Raises `ValueError` for
    an averaged loss without `tokens` and for values out of range.

    >>> import ipodyn
    >>> ipodyn.recipes.from_trl(beta=0.1, loss_type="ipo", tokens=200, reference="last", on_policy=1.0).point()
    {'alpha': 1.0, 'beta': 2000.0, 'lam': 1.0}
    """
    check_positive(beta, "beta", "it is TRL's, the KL coefficient; its default is 0.1")
    if loss_type not in LOSS_TYPES:
        raise ValueError(f"`loss_type` is {loss_type!r}; only {', '.join(LOSS_TYPES)} are objectives here.")
    if tokens is not None:
        check_positive(tokens, "tokens", "it is the length of a completion")
    objective, averages = _LOSSES[loss_type]
    if averages and tokens is None:
        raise ValueError(f'`tokens` is needed for loss_type "{loss_type}": {WHY_TOKENS}.')
    if isinstance(reference, str):
        if reference not in ("first", "last"):
            raise ValueError(f"`reference` is {reference!r}; say 'first', 'last' or a fraction from 0 to 1.")
        reference = 0.0 if reference == "first" else 1.0
    length = float(tokens) if averages and tokens is not None else None
    alpha, lam = float(check_alpha(reference, name="reference")), float(check_lam(on_policy, name="on_policy"))
    once = alpha == 0 and lam == 0
    recipe = make_recipe(
        "TRL",
        f"beta {beta:g}, loss_type {loss_type!r}" + ("" if length is None else f", {length:g} tokens"),
        objective,
        1 if once else None,
        alpha=alpha,
        beta=(1.0 if length is None else length) / beta,
        lam=lam,
    )
    summed = 1.0 if objective.trl_loss_type == "ipo" else None
    return dataclasses.replace(recipe, tokens=length or summed, notes=(ONE_ROUND,) if once else ())


def to_trl(recipe: Recipe, *, tokens: float | int | None = None) -> TrlSettings:
    """The settings of TRL for a recipe, the inverse of `from_trl`.

    - `recipe`: with numbers, not traced values. - `tokens`: length of a completion, needed for IPO unless the recipe
      has it. Raises `ValueError` for an objective that TRL does not name, or IPO without a length.

    >>> import ipodyn
    >>> print(ipodyn.recipes.to_trl(ipodyn.recipes.online(beta=10.0, objective=ipodyn.DPO())))
    TRL, loss_type 'sigmoid'
      beta = 0.1  KL coefficient (up: closer to the reference); ipodyn's beta is 10 (up: further from it)
      the reference stays at the start: ref_model of each round (0 of the current)
      all pairs are sampled from the current policy (1 of them)
    """
    alpha, beta, lam = (float(jnp.asarray(x)) for x in (recipe.alpha, recipe.beta, recipe.lam))
    if recipe.objective.trl_loss_type == "sigmoid":
        length = recipe.tokens if tokens is None else float(tokens)
        averaged = recipe.tokens is not None
        return (
            TrlSettings((length or 1.0) / beta, "sigmoid_norm", alpha, lam, length)
            if averaged
            else TrlSettings(1 / beta, "sigmoid", alpha, lam)
        )
    if recipe.objective.trl_loss_type is None:
        raise ValueError(f"TRL has no `loss_type` for {type(recipe.objective).__name__}; give IPO or DPO.")
    length = recipe.tokens if tokens is None else tokens
    if length is None:
        raise ValueError(f"`tokens` is needed for IPO: {WHY_TOKENS}.")
    check_positive(length, "tokens", "it is the length of a completion")
    return TrlSettings(float(length) / beta, "ipo", alpha, lam, float(length))
