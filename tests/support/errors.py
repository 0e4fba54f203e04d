"""A check that every error of this package must pass."""

import pickle

import pytest


def caught(error, call, *words):
    """Return the error of this class that a call raises. It must pickle, and its message must hold the words."""
    with pytest.raises(error) as info:
        call()
    again = pickle.loads(pickle.dumps(info.value))
    assert type(again) is type(info.value)
    assert str(again) == str(info.value)
    for word in words:
        assert word in str(info.value), str(info.value)
    return info.value
