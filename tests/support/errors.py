"""What every error of ours must stand."""

import pickle

import pytest


def caught(error, call, *words):
    """The error of that class that a call raises, which survives pickling and whose message holds the words."""
    with pytest.raises(error) as info:
        call()
    again = pickle.loads(pickle.dumps(info.value))
    assert type(again) is type(info.value)
    assert str(again) == str(info.value)
    for word in words:
        assert word in str(info.value), str(info.value)
    return info.value
