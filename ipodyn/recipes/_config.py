r"""Configurations of published trainers as recipes: TRL, SPPO, INPO and COMAL, MNPO; from a mapping, YAML or JSON.

What a configuration does not say is the trainer's default, and the recipe's notes name it.
"""

import dataclasses
import fractions
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from .._numerics.checks import check_positive, check_unit_interval
from .._objectives.ipo import IPO
from ._cube import Recipe, make_recipe
from ._trl import AVERAGED, LOSS_TYPES, from_trl

# Settings that turn the objective into one that is not here: name -> (value that leaves it alone, why not).
_FOREIGN: dict[str, tuple[Any, str]] = {
    "label_smoothing": (0.0, "smoothed labels are another P: mix (1 - s) P + s P^T into the data instead"),
    "reference_free": (False, "without a reference nothing holds the policy: leave it out"),
    "f_divergence_type": ("reverse_kl", "only the reverse KL divergence has these closed forms"),
    "rpo_alpha": (None, "a supervised term is added to the loss"),
    "ld_alpha": (None, "long completions are weighted down in the log-probabilities"),
    "use_weighting": (False, "pairs are weighted by the policy (WPO)"),
}
# Keys that only trainers which sample from the policy have.
_ONLINE = ("reward_model_path", "judge", "max_new_tokens", "missing_eos_penalty", "reward_funcs", "beta_list")
_MEMORY = (
    "a reference that is mixed in or synced every few steps has a memory of its own (TR-DPO) and is no point "
    "(alpha, beta, lam); {cure}"
)


def read_config(path: str | pathlib.Path) -> dict[str, Any]:
    """The settings in a YAML or JSON file, one mapping; `ValueError`, one line, for anything else.

    >>> import json, pathlib, tempfile, ipodyn
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "dpo.json"
    >>> _ = path.write_text(json.dumps({"beta": 0.2}))
    >>> ipodyn.recipes.read_config(path)
    {'beta': 0.2}
    """
    path = pathlib.Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read ({error.__class__.__name__}); name a YAML or JSON file.") from None
    try:
        settings = json.loads(text) if path.suffix.lower() == ".json" else _yaml(text)
    except ValueError as error:
        raise ValueError(f"{path}: is no YAML or JSON ({str(error).splitlines()[0]}).") from None
    if not isinstance(settings, dict):
        raise ValueError(f"{path}: holds {type(settings).__name__}, not settings; write `name: value` lines.")
    return {str(name): value for name, value in settings.items()}


def _yaml(text: str) -> Any:
    try:
        import yaml
    except ImportError as error:
        raise ImportError("reading YAML needs PyYAML: pip install 'ipodyn[cli]'") from error
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None


def from_config(
    settings: Mapping[str, Any],
    *,
    tokens: float | int | None = None,
    reference: float | int | str | None = None,
    on_policy: float | int | None = None,
) -> Recipe:
    """The recipe that a trainer's configuration describes; its notes say what was not said.

    - `settings`: names and values as in the trainer's configuration; those that do not bear on the loop are ignored.
      `tau_eta_ratio` and `eta` are INPO's and COMAL's, `ratio` and `eta` MNPO's, `loss_type` "sppo" is SPPO's; all
      else is TRL's `DPOConfig`, or `OnlineDPOConfig` where a reward model, a judge or a list of betas is named.
    - `tokens`: length of a completion, needed where the loss averages over tokens (TRL's "ipo", MNPO).
    - `reference`, `on_policy`: as in `from_trl`; what the script around a TRL trainer does between rounds. None: the
      trainer's own.

    Raises `ValueError` for settings that are no point (alpha, beta, lam), with the reason. Source: TRL's documentation,
    section on each trainer's configuration; SPPO arXiv 2405.00675; INPO arXiv 2407.00617; COMAL arXiv 2410.23223.

    >>> import ipodyn
    >>> comal = ipodyn.recipes.from_config({"eta": 0.002, "tau_eta_ratio": 0.25})
    >>> comal.point()
    {'alpha': 0.75, 'beta': 500.0, 'lam': 1.0}
    """
    if "mixture_coef" in settings:
        raise ValueError(_nash_md(settings))
    if "tau_eta_ratio" in settings or ("ratio" in settings and "eta" in settings):
        _refuse_between_rounds(reference, on_policy, "INPO, COMAL and MNPO")
        return _mirror(settings, tokens)
    loss_type = _loss_type(settings)
    if loss_type in ("sppo", "sppo_single"):
        _refuse_between_rounds(reference, on_policy, "SPPO")
        return _sppo(settings, loss_type)
    return _trl(settings, loss_type, tokens, reference, on_policy)


def number(value: Any, name: str) -> float:
    """A number as configurations write it: 0.1, "5e-7" (a string to YAML), "1/3"."""
    try:
        return float(fractions.Fraction(value)) if isinstance(value, str) and "/" in value else float(value)
    except (TypeError, ValueError, ZeroDivisionError):
        raise ValueError(f"`{name}` is {value!r}; give a number.") from None


def _loss_type(settings: Mapping[str, Any]) -> str:
    given = settings.get("loss_type", "sigmoid")
    names = [given] if isinstance(given, str) else list(given)
    if len(names) != 1:
        raise ValueError(f"`loss_type` is {given!r}: a sum of losses is none of the objectives here; give one of them.")
    return str(names[0])


def _refuse_between_rounds(reference: Any, on_policy: Any, owner: str) -> None:
    for name, value in (("reference", reference), ("on_policy", on_policy)):
        if value is not None:
            raise ValueError(f"`{name}` is {value!r}, but {owner} say themselves what a round uses; leave it out.")


def _last(value: Any) -> Any:
    """Of a list with one value an epoch, the one that all later epochs keep."""
    return value[-1] if isinstance(value, list | tuple) and value else value


def _nash_md(settings: Mapping[str, Any]) -> str:
    weight = number(_last(settings["mixture_coef"]), "mixture_coef")
    tau = number(_last(settings.get("beta", 0.1)), "beta")
    return (
        f"`mixture_coef` is {weight:g}, the reference's weight in the opponent of Nash-MD, whose updates are gradient "
        f"steps and not rounds; as a loop of rounds it is the recipe nash-md with eta * tau = {weight:g}: "
        f"eta {weight / tau:g}, tau {tau:g}."
    )


def _mirror(settings: Mapping[str, Any], tokens: float | int | None) -> Recipe:
    """INPO and COMAL (sums of log-probabilities), MNPO (averages): (1 - ratio, 1 / eta, 1), pairs from the policy."""
    averages = "ratio" in settings
    key = "ratio" if averages else "tau_eta_ratio"
    ratio, eta = number(settings[key], key), number(settings.get("eta", 0.1), "eta")
    check_unit_interval(ratio, key)
    check_positive(eta, "eta", "it is the KL coefficient of a round")
    if averages and tokens is None:
        raise ValueError("`tokens` is needed for MNPO, whose loss averages log-probabilities over the completion.")
    length = float(tokens) if averages and tokens is not None else None
    name = "MNPO" if averages else "INPO"
    notes = [f"reference: {ratio:.4g} first model, {1 - ratio:.4g} last checkpoint; pairs sampled from the policy"]
    if "eta" not in settings:
        notes.append("eta 0.1 (INPO's default, not in the configuration)")
    weights = settings.get("history_weights")
    if averages and (weights is None or any(number(weight, "history_weights") for weight in weights[1:])):
        history = number(settings.get("max_history_t", 2), "max_history_t")
        if history > 1:
            notes.append("older checkpoints in the reference are left out: only the last one is a point of the cube")
    if not averages:
        notes.append("COMAL's renewal of the first model after some rounds is left out: this is the loop between two")
    recipe = make_recipe(
        name, f"eta {eta:g}, {key} {ratio:.4g}", IPO(), alpha=1 - ratio, beta=(length or 1.0) / eta, lam=1.0
    )
    return dataclasses.replace(recipe, tokens=length, notes=tuple(notes))


def _sppo(settings: Mapping[str, Any], loss_type: str) -> Recipe:
    """SPPO pulls each log-ratio to (P - 1/2) / beta, from the last checkpoint, on its own pairs: (1, 1 / beta, 1)."""
    beta = number(settings.get("beta", 0.001), "beta")
    check_positive(beta, "beta", "it is the KL coefficient of a round")
    said = () if "beta" in settings else ("beta 0.001 (SPPO's default, not in the configuration)",)
    recipe = make_recipe("SPPO", f"beta {beta:g}, loss_type {loss_type!r}", IPO(), alpha=1.0, beta=1 / beta, lam=1.0)
    notes = ("reference and pairs are the last checkpoint's, as SPPO's rounds are",)
    return dataclasses.replace(recipe, tokens=1.0, notes=said + notes)


def _trl(
    settings: Mapping[str, Any],
    loss_type: str,
    tokens: float | int | None,
    reference: float | int | str | None,
    on_policy: float | int | None,
) -> Recipe:
    if loss_type not in LOSS_TYPES:
        raise ValueError(f"`loss_type` is {loss_type!r}; only {', '.join(LOSS_TYPES)} are objectives here.")
    for name, (harmless, why) in _FOREIGN.items():
        value = settings.get(name, harmless)
        if value not in (harmless, None) and str(value).rpartition(".")[2].lower() != str(harmless).lower():
            raise ValueError(f"`{name}` is {value!r}: {why}.")
    online = any(settings.get(name) is not None for name in _ONLINE) or isinstance(settings.get("beta"), list | tuple)
    notes = []
    beta, words = _beta(settings)
    notes += words
    if "loss_type" not in settings:
        notes.append('loss_type "sigmoid" (TRL\'s default, not said)')
    kept, words = _reference(settings, reference)
    notes += words
    if on_policy is None:
        on_policy = 1.0 if online else 0.0
        notes.append(
            "pairs sampled from the policy (an online trainer)" if online else "fixed data (TRL's default, not said)"
        )
    if loss_type in AVERAGED and online:
        tokens = 1.0
        notes.append("log-ratios are summed over tokens (OnlineDPOTrainer): their number plays no part")
    recipe = from_trl(beta=beta, loss_type=loss_type, tokens=tokens, reference=kept, on_policy=on_policy)
    return dataclasses.replace(recipe, notes=(*notes, *recipe.notes))


def _beta(settings: Mapping[str, Any]) -> tuple[float, list[str]]:
    given = settings.get("beta_list") or settings.get("beta")
    if given is None:
        return 0.1, ["beta 0.1 (TRL's default, not said)"]
    if not isinstance(given, list | tuple):
        return number(given, "beta"), []
    if not given:
        raise ValueError("`beta` is an empty list; give a number, or one value an epoch.")
    last = number(given[-1], "beta")
    if len(given) == 1:
        return last, []
    return last, [f"beta {last:g}: the last of {len(given)}, one an epoch, which all later epochs keep"]


def _reference(settings: Mapping[str, Any], given: Any) -> tuple[Any, list[str]]:
    """What the reference of a round is, and what is to be said of it."""
    if given is not None:
        return given, []
    if not settings.get("sync_ref_model", False):
        return "first", ["reference fixed (TRL's default, not said)"]
    mixup = number(settings.get("ref_model_mixup_alpha", 0.6), "ref_model_mixup_alpha")
    if mixup == 1.0:
        return "last", ["sync_ref_model with ref_model_mixup_alpha 1: the last checkpoint, if it syncs once a round"]
    cure = 'say reference="last" for its limit, a full sync once a round, or a fraction for a fixed mixture'
    raise ValueError(f"`sync_ref_model` with `ref_model_mixup_alpha` {mixup:g}: {_MEMORY.format(cure=cure)}.")
