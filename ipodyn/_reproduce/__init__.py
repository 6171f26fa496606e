"""The experiments of Chen, He, Jordan and Yao (arXiv 2602.12180) as figures, tables and claims; `ipodyn reproduce`."""

from ._claims import CLAIMS as CLAIMS
from ._claims import Claim as Claim
from ._claims import Judged as Judged
from ._claims import judge_claims as judge_claims
from ._config import PAPER as PAPER
from ._config import QUICK as QUICK
from ._config import Config as Config
from ._config import Made as Made
from ._config import Material as Material
from ._folder import Folder as Folder
from ._page import contact_sheet as contact_sheet
from ._registry import FIGURES as FIGURES
from ._registry import Figure as Figure
from ._registry import chosen as chosen
