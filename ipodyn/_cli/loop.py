"""The loop that the options of a command describe: a point of the cube, a recipe, or a trainer's settings."""

import dataclasses
import enum
import pathlib
from collections.abc import Mapping
from typing import Any

from .. import recipes
from .._objectives.dpo import DPO
from .._objectives.ipo import IPO
from .._objectives.objective import AbstractObjective
from ..recipes import Recipe
from .errors import CommandError, foreseen

_NAMES = (*recipes.BY_BETA, *recipes.BY_STEP)
# What a user may say for the reference and the data of a trainer's rounds, beside a fraction.
_REFERENCES = {"fixed": "first", "first": "first", "last": "last"}
_DATA = {"fixed": 0.0, "on-policy": 1.0}


@dataclasses.dataclass(frozen=True)
class LoopOptions:
    """The options about the loop as the user gave them; None is not given."""

    recipe: str | None = None
    alpha: float | None = None
    beta: float | None = None
    lam: float | None = None
    eta: float | None = None
    tau: float | None = None
    objective: str | None = None
    config: pathlib.Path | None = None
    trl_beta: float | None = None
    trl_loss: str | None = None
    trl_reference: str | None = None
    trl_data: str | None = None
    tokens: float | None = None

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> "LoopOptions":
        """Of all options of a command, by name: those that belong here."""
        own = {field.name: options[field.name] for field in dataclasses.fields(cls) if field.name in options}
        return cls(**{name: value.value if isinstance(value, enum.Enum) else value for name, value in own.items()})

    def chosen(self) -> Recipe:
        """The loop; `CommandError`, one line, for options that do not go together or are out of range."""
        if self.beta is not None and self.trl_beta is not None:
            raise CommandError("give --beta or --trl-beta, not both: the one is the other turned over")
        if self.trl_beta is not None and not 0 < self.trl_beta < float("inf"):
            raise CommandError(f"--trl-beta is {self.trl_beta:g}; it is the trainer's KL coefficient, a number above 0")
        if self.tokens is not None and not 0 < self.tokens < float("inf"):
            raise CommandError(f"--tokens is {self.tokens:g}; it is the length of a completion, a number above 0")
        with foreseen(ValueError, ImportError):
            if self.recipe is not None:
                return self._named()
            self._refuse(("eta", "tau"), "--recipe mirror-descent or nash-md")
            if any(getattr(self, name) is not None for name in ("config", *_TRAINER)):
                return self._trained()
            point = {"alpha": 0.9 if self.alpha is None else self.alpha, "lam": 0.8 if self.lam is None else self.lam}
            return self._measured(recipes.custom(**point, beta=self._strength(), objective=self._objective()))

    def _trained(self) -> Recipe:
        """A trainer's settings: what is not said is the trainer's default, and the recipe says so."""
        self._refuse(("beta",), "loops without trainer settings; here it is --trl-beta")
        settings = {} if self.config is None else recipes.read_config(self.config)
        loss = self.trl_loss
        if self.objective is not None:
            if loss is not None:
                raise CommandError("give --objective or --trl-loss, not both: ipo is IPO, sigmoid is DPO")
            loss = "ipo" if self.objective == "ipo" else "sigmoid"
        settings |= {name: x for name, x in {"beta": self.trl_beta, "loss_type": loss}.items() if x is not None}
        if self.trl_reference == "synced":
            settings["sync_ref_model"] = True
        reference = self._between("trl_reference", "alpha", _REFERENCES)
        on_policy = self._between("trl_data", "lam", _DATA)
        return recipes.from_config(
            settings,
            tokens=self.tokens,
            reference=None if reference == "synced" else reference,
            on_policy=on_policy,  # pyright: ignore[reportArgumentType]
        )

    def _between(self, name: str, plain: str, words: Mapping[str, float | str]) -> float | str | None:
        """What happens between rounds, as a word, or a fraction by either name."""
        text, fraction = getattr(self, name), getattr(self, plain)
        option = f"--{name.replace('_', '-')}"
        if text is None:
            return fraction
        if fraction is not None:
            raise CommandError(f"give {option} or --{plain}, not both: they say the same")
        if text in words or text == "synced":
            return words.get(text, text)
        try:
            return float(text)
        except ValueError:
            choice = ", ".join([*words, *(["synced"] if name == "trl_reference" else [])])
            raise CommandError(f"{option} is {text!r}: say {choice}, or a fraction from 0 to 1") from None

    def _named(self) -> Recipe:
        """A recipe with its own numbers."""
        assert self.recipe is not None
        self._refuse(("alpha", "lam", "config", "trl_loss", "trl_reference", "trl_data"), "loops without --recipe")
        if self.recipe in recipes.BY_BETA:
            self._refuse(("eta", "tau"), "--recipe mirror-descent or nash-md")
            return self._measured(recipes.BY_BETA[self.recipe](beta=self._strength(), objective=self._objective()))
        if self.recipe not in recipes.BY_STEP:
            raise CommandError(f"unknown --recipe {self.recipe!r}: choose {', '.join(_NAMES)}")
        self._refuse(("beta", "trl_beta", "tokens"), "other recipes; this one takes --eta and --tau")
        if self.eta is None or self.tau is None:
            raise CommandError(
                f"--recipe {self.recipe} needs --eta (step) and --tau (KL coefficient, the trainer's beta)"
            )
        if self.recipe == "nash-md":
            if self.objective == "dpo":
                raise CommandError("--recipe nash-md has the score of IPO; leave --objective out")
            return recipes.nash_md(eta=self.eta, tau=self.tau)
        return recipes.BY_STEP[self.recipe](eta=self.eta, tau=self.tau, objective=self._objective())

    def _objective(self) -> AbstractObjective:
        """IPO unless told otherwise; with a trainer's beta, the trainer's default, which is DPO."""
        default = "ipo" if self.trl_beta is None else "dpo"
        return DPO() if (self.objective or default) == "dpo" else IPO()

    def _strength(self) -> float:
        if self.trl_beta is None:
            return 5.0 if self.beta is None else self.beta
        if self._objective().trl_loss_type == "sigmoid":
            return 1 / self.trl_beta
        if self.tokens is None:
            raise CommandError(f"--trl-beta with --objective ipo needs --tokens: {recipes.WHY_TOKENS}")
        return self.tokens / self.trl_beta

    def _measured(self, recipe: Recipe) -> Recipe:
        """The recipe with the completion length that IPO's trainer divides by."""
        averages = recipe.objective.trl_loss_type == "ipo" and self.tokens is not None
        return dataclasses.replace(recipe, tokens=self.tokens) if averages else recipe

    def _refuse(self, names: tuple[str, ...], owner: str) -> None:
        for name in names:
            if getattr(self, name) is not None:
                raise CommandError(f"--{name.replace('_', '-')} goes with {owner}; leave it out")


_TRAINER = ("trl_beta", "trl_loss", "trl_reference", "trl_data")
