"""The peers: each module has `NAME`, and `prepare(job)` that returns a function from nothing to `Statistics`.

Everything that does not belong to the rounds (building, writing out arrays, moving them to a device) happens in
`prepare`; compilation happens in the first call, which is timed apart. A peer that cannot run here raises
`Unavailable` with the reason.
"""

from collections.abc import Callable

from ..jobs import Statistics

Runner = Callable[[], Statistics]


class Unavailable(Exception):
    """This cannot run here; the message says why."""
