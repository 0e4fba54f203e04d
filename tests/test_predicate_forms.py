"""Each form of question reads the chunks that it needs, and no others; counted at the store."""

import pytest

from benchmarks.predicate_forms import chunks_planned, chunks_read, written_stores
from benchmarks.problems import FORMS


@pytest.fixture(scope="module")
def paths():
    """Path of each store by name."""
    with written_stores() as paths:
        yield paths


def parameters(forms):
    return [
        pytest.param(form, id=form.name, marks=[pytest.mark.xfail(strict=True, reason=form.gap)] if form.gap else [])
        for form in forms
    ]


@pytest.mark.parametrize("form", parameters(FORMS))
def test_reads_the_chunks_that_it_needs(form, paths):
    assert chunks_read(form, paths[form.store]) == form.need


@pytest.mark.parametrize("form", parameters(form for form in FORMS if form.store == "grid" and form.need <= 40))
def test_reads_of_a_shard_the_chunks_that_it_needs(form, paths):
    assert chunks_read(form, paths["sharded"]) == form.need


@pytest.mark.parametrize("form", parameters(FORMS))
def test_plans_the_chunks_that_it_needs(form, paths):
    assert chunks_planned(form, paths[form.store]) == form.need
