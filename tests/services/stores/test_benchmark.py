"""The benchmark of late stores runs, its readers agree, and ours makes the fewest requests."""

import pytest

from benchmarks import remote

pytestmark = [
    pytest.mark.stores,
    pytest.mark.filterwarnings("ignore::zarr.errors.ZarrUserWarning"),  # of consolidated metadata, when it is read
]


def test_readers_of_a_late_store_agree(cloud, tmp_path):
    remote.write(tmp_path)
    layout = "24 chunks of 1.7 MB"
    ways = remote.readers(cloud, cloud.upload(tmp_path / layout), layout, None)
    found = remote.measure(cloud.services, ways, 20, 1)
    assert set(found) == set(ways)
    requests = {name: count for name, (_, count, _) in found.items()}
    assert requests["rainbear_dask, obstore"] == 25 == min(requests.values())
    if cloud.scheme == "s3":
        assert requests["rainbear_dask, s3fs"] == 25  # the reader requests ranges, so s3fs requests no sizes first
