"""``lf.zarr``: methods for LazyFrames over Zarr scans. The first use of a public function registers them."""

from collections.abc import Mapping, Sequence
from functools import reduce
from operator import and_
from typing import Any

import polars as pl

from rainbear_dask.api.sample import sample
from rainbear_dask.exceptions import PointsError, QueryError
from rainbear_dask.query.io_source import scans_of
from rainbear_dask.sampling.locate import nearest_labels


@pl.api.register_lazyframe_namespace("zarr")
class ZarrNamespace:
    """Methods of a query over one Zarr scan.

    Parameters
    ----------
    lf : LazyFrame
        The query.
    """

    def __init__(self, lf: pl.LazyFrame) -> None:
        self._lf = lf

    def nearest(self, **labels: Any) -> pl.LazyFrame:
        """Keep the rows at the nearest labels, as ``xarray.Dataset.sel(method="nearest")`` does.

        The labels are looked up at once. The filter names them, so it prunes chunks.

        Parameters
        ----------
        **labels
            For each dimension, one value or a list of values. Of two labels at the same distance, the larger one is
            kept. Longitudes wrap if their labels go around the Earth.

        Returns
        -------
        LazyFrame
            The query with a further filter: the product of the labels of all dimensions.

        Raises
        ------
        PointsError
            If a value is more than half a step outside of the labels, null, or of another type.
        UnknownColumnError
            If the table has no such coordinate.
        QueryError
            If the query has not exactly one Zarr scan.

        Examples
        --------
        >>> import rainbear_dask as rd
        >>> rd.scan_zarr("sst.zarr").zarr.nearest(latitude=52.37, longitude=[4.9, 110]).collect()  # doctest: +SKIP
        """
        if not labels:
            raise PointsError("nearest() needs a value for at least one dimension: lf.zarr.nearest(lat=52.37).")
        scans = scans_of(self._lf)
        if len(scans) != 1:
            raise QueryError(f"nearest() needs a query over one Zarr scan. This query has {len(scans)}.")
        conditions = []
        for name, wanted in labels.items():
            values = wanted if isinstance(wanted, pl.Series) else pl.Series(name, _listed(wanted), strict=False)
            conditions.append(pl.col(name).is_in(nearest_labels(scans[0], name, values).implode()))
        return self._lf.filter(reduce(and_, conditions))

    def sample(
        self,
        points: pl.DataFrame | pl.LazyFrame,
        on: Mapping[str, str] | Sequence[str] | str | None = None,
        **options: Any,
    ) -> pl.LazyFrame:
        """Return points with the values of this query there.

        Parameters
        ----------
        points, on, **options
            As in `rainbear_dask.sample`.

        Returns
        -------
        LazyFrame
            The points with their values.

        Raises
        ------
        QueryError
            If the query does more than filter one scan row by row and choose columns.
        """
        return sample(self._lf, points, on, **options)


def _listed(value: Any) -> Sequence[Any]:
    return list(value) if hasattr(value, "__iter__") and not isinstance(value, str | bytes) else [value]
