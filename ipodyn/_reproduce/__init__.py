"""The experiments of Chen, He, Jordan and Yao (arXiv 2602.12180) as figures, tables and claims; `ipodyn reproduce`."""

from .claims import CLAIMS as CLAIMS
from .claims import Claim as Claim
from .claims import Judged as Judged
from .claims import judge_claims as judge_claims
from .config import PAPER as PAPER
from .config import QUICK as QUICK
from .config import Config as Config
from .config import Made as Made
from .config import Material as Material
from .folder import Folder as Folder
from .page import contact_sheet as contact_sheet
from .registry import FIGURES as FIGURES
from .registry import Figure as Figure
from .registry import chosen as chosen
