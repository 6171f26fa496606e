"""Pictures: stability maps, rollouts, and trajectories in the simplex, as matplotlib figures.

Every function returns a `matplotlib.figure.Figure` (`figure.savefig("map.png")`) and leaves pyplot alone, so it is safe
in libraries, threads and servers. Needs matplotlib: `pip install 'ipodyn[plot]'`.
"""

from ._audit import audit as audit
from ._figure import check_available as check_available
from ._map import stability_map as stability_map
from ._rollout import rollout as rollout
from ._simplex import simplex as simplex
