r"""Named recipes: what people run when they iterate preference optimisation, as points of the (alpha, beta, lam) cube.

Every recipe is exact at population level. `recipe.loop(P)` is the loop, `print(recipe)` says which way each number
points, `from_trl` and `to_trl` translate the settings of TRL's trainers, `from_config` a whole configuration.

>>> import ipodyn
>>> recipe = ipodyn.recipes.self_rewarding(beta=2.0)
>>> loop = recipe.loop(ipodyn.problems.three_cycle(0.3))
>>> [float(x) for x in (loop.alpha, loop.beta, loop.lam)]
[1.0, 2.0, 1.0]
"""

from ._config import from_config as from_config
from ._config import read_config as read_config
from ._cube import BY_BETA as BY_BETA
from ._cube import BY_STEP as BY_STEP
from ._cube import Recipe as Recipe
from ._cube import custom as custom
from ._cube import last_checkpoint as last_checkpoint
from ._cube import mirror_descent as mirror_descent
from ._cube import nash_md as nash_md
from ._cube import nash_md_policy as nash_md_policy
from ._cube import one_shot as one_shot
from ._cube import online as online
from ._cube import self_rewarding as self_rewarding
from ._trl import LOSS_TYPES as LOSS_TYPES
from ._trl import WHY_TOKENS as WHY_TOKENS
from ._trl import TrlSettings as TrlSettings
from ._trl import from_trl as from_trl
from ._trl import to_trl as to_trl
