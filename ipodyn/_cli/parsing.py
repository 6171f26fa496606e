"""How the texts of options are read."""

import numpy as np

from .._numerics.checks import check_policy
from .errors import CommandError, foreseen


def parse_grid(text: str, name: str) -> np.ndarray:
    """`START:STOP:N`, `START:STOP:N:log` or one number, as increasing values."""
    how = f"write START:STOP:N such as 0.5:10:20, START:STOP:N:log, or one number; {name} is {text!r}"
    parts = text.split(":")
    log = len(parts) == 4 and parts[3] == "log"
    if len(parts) not in (1, 3) and not log:
        raise CommandError(how)
    try:
        ends = [float(part) for part in parts[:2]]
        number = int(parts[2]) if len(parts) > 2 else 1
    except ValueError:
        raise CommandError(how) from None
    if not np.all(np.isfinite(ends)):
        raise CommandError(f"{name} is {text!r}: give finite numbers")
    if len(ends) == 1:
        return np.array(ends)
    start, stop = ends
    if number < 2:
        raise CommandError(f"{name} is {text!r}: a range needs at least 2 points; for one point give one number")
    if not start < stop:
        raise CommandError(f"{name} is {text!r}: STOP must be larger than START")
    if log and start <= 0:
        raise CommandError(f"{name} is {text!r}: a grid with :log must start above 0")
    return np.geomspace(start, stop, number) if log else np.linspace(start, stop, number)


def parse_policy(text: str, K: int) -> np.ndarray:
    """`P1,P2,...` as K probabilities that sum to 1."""
    try:
        policy = np.array([float(part) for part in text.split(",")])
    except ValueError:
        raise CommandError(
            f"--start is {text!r}: write {K} probabilities with commas between them, such as 0.5,0.3,0.2"
        ) from None
    with foreseen(ValueError):
        return check_policy(policy, K, name="--start")


def with_default_source(arguments: list[str]) -> list[str]:
    """`--helpsteer` may stand alone; then it means the dataset itself."""
    result = []
    for place, argument in enumerate(arguments):
        result.append(argument)
        following = arguments[place + 1] if place + 1 < len(arguments) else "--"
        if argument == "--helpsteer" and following.startswith("--"):
            result.append("nvidia/HelpSteer")
    return result
