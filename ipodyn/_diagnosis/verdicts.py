"""The one word that tables and pages have for a prompt, and how many prompts have it."""

import numpy as np

from .parts import EquilibriumSummary
from .thresholds import CLOSE

# Worst first, with their meaning.
MEANING = {
    "unanchored": "alpha = 1: nothing anchors the loop, so it has no fixed point inside",
    "unknown": "no fixed point could be certified",
    "unstable": "does not settle: small disturbances grow and turn",
    "collapsed": "settles, but nearly all probability is on one response",
    "close": f"settles slowly: the spectral radius is {CLOSE:g} or more, and nearer to 1 than to alpha",
    "calm": "settles, and small disturbances die out",
}
VERDICTS = tuple(MEANING)


def verdicts(equilibrium: EquilibriumSummary, alpha: float) -> np.ndarray:
    """(M,) words of `VERDICTS`: the grade of the fixed point, or of those that are stable that they collapse."""
    if alpha == 1:
        return np.full(equilibrium.solved.shape, "unanchored")
    grade = equilibrium.grade
    settles = np.where(grade == "close", "close", "calm")
    settles = np.where(equilibrium.collapses, "collapsed", settles)
    words = np.where(equilibrium.stable, settles, np.where(grade == "unresolved", "unknown", grade))
    return words.astype("<U10")
