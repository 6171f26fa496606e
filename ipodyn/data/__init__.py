"""Preference matrices from data: rating tables, judged pairs, arrays, HelpSteer, and a synthetic stand-in.

Every loader returns a `PreferenceSet`, whose `report` accounts for each row read, and raises `DataError`, one
line, for data that cannot be used.
"""

from ._arrays import load_preferences as load_preferences
from ._hub import HELPSTEER_ATTRIBUTES as HELPSTEER_ATTRIBUTES
from ._hub import load_helpsteer as load_helpsteer
from ._pairs import load_pairs as load_pairs
from ._ratings import attribute_average as attribute_average
from ._ratings import load_ratings as load_ratings
from ._ratings import ratings_to_preferences as ratings_to_preferences
from ._report import DataError as DataError
from ._report import LoadReport as LoadReport
from ._set import PreferenceSet as PreferenceSet
from ._synthetic import synthetic_helpsteer as synthetic_helpsteer
from ._synthetic import synthetic_ratings as synthetic_ratings
from ._tables import read_table as read_table
