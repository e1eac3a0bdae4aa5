"""What a call that must be refused says."""

import pytest

from gossamer.workloads.errors import InputError


def message(act, *args, **kwargs):
    """Return the one line in which ``act`` refuses these arguments."""
    with pytest.raises(InputError) as error:
        act(*args, **kwargs)
    text = str(error.value)
    assert "\n" not in text
    return text
