"""``lf.zarr``: methods for LazyFrames over Zarr scans. The first use of a public function registers them."""

from collections.abc import Mapping, Sequence
from functools import reduce
from operator import and_
from typing import TYPE_CHECKING, Any

import polars as pl

from rainbear_dask.api.collect import collect
from rainbear_dask.api.dataset import to_xarray
from rainbear_dask.api.plan import ScanPlan
from rainbear_dask.api.sample import sample
from rainbear_dask.api.scan import explain
from rainbear_dask.convert.grid import Dims
from rainbear_dask.diagnostics.explanation import Explanation
from rainbear_dask.exceptions import PointsError, QueryError
from rainbear_dask.planning.limits import check_limits
from rainbear_dask.query.io_source import scans_of
from rainbear_dask.query.scanned_frame import limits_of, plan_of_filters
from rainbear_dask.sampling.locate import nearest_labels

if TYPE_CHECKING:
    import xarray as xr


@pl.api.register_lazyframe_namespace("zarr")
class ZarrNamespace:
    """Methods of a query over Zarr scans.

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

    def explain(self) -> Explanation:
        """Report which chunks the query would read.

        Returns
        -------
        Explanation
            As `rainbear_dask.explain` returns it.
        """
        return explain(self._lf)

    def plan(self) -> ScanPlan:
        """Return the plan of the query, which runs and exports the rows.

        Returns
        -------
        ScanPlan
            As `rainbear_dask.plan` returns it.

        Raises
        ------
        QueryError
            If the query does more than filter one scan row by row and choose columns.
        PlanTooLargeError
            If the plan exceeds an upper bound of the scan.
        """
        found, limits = plan_of_filters(self._lf), limits_of(self._lf)
        check_limits(found, limits)
        return ScanPlan(found, limits)

    def collect(self, **options: Any) -> pl.DataFrame:
        """Collect the query, and compute its aggregates where the chunks are decoded.

        Parameters
        ----------
        **options
            As in `rainbear_dask.collect`.

        Returns
        -------
        DataFrame
            The rows.
        """
        return collect(self._lf, **options)

    def to_xarray(self, dims: Dims, **options: Any) -> "xr.Dataset":
        """Return the rows as an xarray Dataset; needs xarray.

        Parameters
        ----------
        dims, **options
            As in `rainbear_dask.to_xarray`.

        Returns
        -------
        xarray.Dataset
            As `rainbear_dask.to_xarray` returns it.
        """
        return to_xarray(self._lf, dims, **options)

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
