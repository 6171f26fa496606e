"""The one word that tables and pages have for a prompt, and how many prompts have it."""

import numpy as np

from .parts import EquilibriumSummary
from .thresholds import CLOSE

# Worst first, with their meaning.
MEANING = {
    "unanchored": "alpha = 1: nothing anchors the loop, so it has no fixed point inside",
    "unknown": "no fixed point could be certified",
    "unstable": "does not settle: small disturbances grow and turn",
    "close": f"settles slowly: the spectral radius is {CLOSE:g} or more",
    "collapsed": "settles, but nearly all probability is on one response",
    "calm": "settles, and small disturbances die out",
}
VERDICTS = tuple(MEANING)


def verdicts(equilibrium: EquilibriumSummary, alpha: float) -> np.ndarray:
    """(M,) words of `VERDICTS`: the grade of the fixed point, and of those that are stable which collapse."""
    if alpha == 1:
        return np.full(equilibrium.solved.shape, "unanchored")
    grade = equilibrium.grade
    settles = np.where(equilibrium.collapses, "collapsed", "calm")
    words = np.where(grade == "stable", settles, np.where(grade == "unresolved", "unknown", grade))
    return words.astype("<U10")
