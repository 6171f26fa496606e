"""What the tests of the loaders share."""

import gzip
import json

import pytest

from ipodyn.data import HELPSTEER_ATTRIBUTES, DataError


def write(path, text):
    path.write_text(text)
    return path


def adds_up(report, rows):
    return report.rows_read == rows == report.rows_used + sum(report.rows_dropped.values())


def error(call, *args, **kwargs):
    """The message of the `DataError` that the call raises; it must be one line."""
    with pytest.raises(DataError) as caught:
        call(*args, **kwargs)
    message = str(caught.value)
    assert "\n" not in message and isinstance(caught.value, ValueError)
    return message


def helpsteer(path, rng, prompts=6):
    """A small file of HelpSteer's schema: four responses a prompt, eight to the first, three to the last."""
    with gzip.open(path, "wt") as file:
        for prompt in range(prompts):
            for response in range({0: 8, prompts - 1: 3}.get(prompt, 4)):
                row = {"prompt": f"Question {prompt}? " * 20, "response": f"Answer {response % 3}. " * 9}
                ratings = rng.integers(0, 5, 5).tolist()
                row |= dict(zip(HELPSTEER_ATTRIBUTES, ratings, strict=True))
                file.write(json.dumps(row) + "\n")
    return path
