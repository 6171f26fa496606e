"""What the tests of the loaders share."""

import pytest

from ipodyn.data import DataError


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
