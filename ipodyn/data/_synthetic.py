"""A stand-in for HelpSteer, drawn at random: for trying the engine without data."""

import numpy as np

from .._numerics.deprecation import renamed_keywords
from .._numerics.randomness import RandomKey, host_generator, key_words
from ._hub import HELPSTEER_ATTRIBUTES
from ._ratings import ratings_to_set
from ._set import PreferenceSet
from ._tables import Ids

# Made up, not fitted: high and coupled helpfulness, correctness and coherence; low complexity and verbosity,
# which go with each other more than with quality. That disagreement between attributes is what makes cycles.
_MEANS = np.array([2.8, 2.8, 3.3, 1.4, 1.5])
_QUALITY = np.array([0.8, 0.8, 0.4, 0.2, 0.3])
_LENGTH = np.array([0.1, 0.0, -0.1, 0.5, 0.7])
_NOISE = np.array([0.4, 0.4, 0.4, 0.4, 0.4])


@renamed_keywords("0.3", seed="key")
def synthetic_helpsteer(key: RandomKey = 0, *, num_prompts: int = 1500) -> PreferenceSet:
    """A **synthetic** set in HelpSteer's shape: four responses a prompt, five attributes on 0..4.

    Each response has a latent quality and a latent length; each attribute is a rounded mixture of both and
    noise, clipped to 0..4. The constants are made up: results on this set show how the engine works and say
    nothing about HelpSteer or any other data. `synthetic` is True, and `source` says so. About two matrices
    in five are strongly transitive and one in twenty is cyclic.

    - `key`: of the ratings and of `ratings_to_preferences`, the recipe that turns them into matrices; a JAX random
      key, or a number to make one from.
    - `num_prompts`: the number of matrices, at least 1.

    >>> data = synthetic_helpsteer()
    >>> len(data), len(data.cyclic()) > 50, len(data.strongly_transitive()) > 300
    (1500, True, True)
    """
    if num_prompts < 1:
        raise ValueError(f"`num_prompts` is {num_prompts}; it must be at least 1")
    ratings = synthetic_ratings(key, num_prompts)
    prompts = Ids(np.repeat(np.arange(num_prompts), 4), list(range(num_prompts)))
    return ratings_to_set(
        "synthetic ratings",
        prompts,
        None,
        ratings.reshape(-1, len(HELPSTEER_ATTRIBUTES)),
        group=4,
        subsets="disjoint",
        scale=1.0,
        key=key,
        limit=num_prompts,
        source=f"synthetic ratings in HelpSteer's shape, seed {key_words(key)}",
        synthetic=True,
    )


@renamed_keywords("0.3", seed="key")
def synthetic_ratings(key: RandomKey = 0, num_prompts: int = 1500) -> np.ndarray:
    """The ratings behind `synthetic_helpsteer`: shape (num_prompts, 4, 5), whole numbers 0..4 in float64."""
    rng = host_generator(key)
    quality = rng.normal(size=(num_prompts, 4, 1))
    length = rng.normal(size=(num_prompts, 4, 1))
    noise = rng.normal(size=(num_prompts, 4, len(HELPSTEER_ATTRIBUTES)))
    return np.clip(np.round(_MEANS + _QUALITY * quality + _LENGTH * length + _NOISE * noise), 0, 4)
