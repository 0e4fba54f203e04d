"""Deliberate faults, and the tests that detect them: ``make mutants``.

Each fault is an exact replacement in a copy of the package, in a separate folder, on which its tests run. A fault that
no test detects shows a missing test.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

TIMED = ("-o", "timeout=200", "-o", "timeout_method=thread", "-o", "faulthandler_timeout=0")
"""A fault may also be an endless loop. The time limit then ends the process, and the running test has detected it."""


@dataclass(frozen=True)
class Fault:
    """A deliberate fault.

    Parameters
    ----------
    name : str
        The fault in words.
    place : str
        The module and the test module to run. A third word selects tests by name.
    right, wrong : str
        Text that occurs exactly once in the module, and its replacement.
    """

    name: str
    place: str
    right: str
    wrong: str


FAULTS = [
    # Statistics of chunks
    Fault(
        "statistics: NaN is no value",
        "planning/intervals planning/test_intervals",
        'pl.when(has_nan).then(nan).otherwise(greatest).alias("high")',
        'pl.when(has_nan).then(greatest).otherwise(greatest).alias("high")',
    ),
    Fault(
        "statistics: float32 is compared as float64",
        "planning/intervals planning/test_intervals",
        'ends = pl.DataFrame([self.low.alias("low"), self.high.alias("high"), self.high.alias("number")])',
        'ends = pl.DataFrame([self.low.alias("low"), self.high.alias("high"), self.high.alias("number")]).cast('
        "{pl.Float32: pl.Float64})",
    ),
    Fault(
        "statistics: a negated comparison counts as the comparison",
        "planning/intervals planning/test_intervals",
        "found if outcome else _NEGATED[found], right",
        "found, right",
    ),
    Fault(
        "statistics: infinity that becomes NaN is forgotten",
        "planning/intervals planning/test_intervals",
        "lost = np.isnan(low) | np.isnan(high)",
        "lost = np.zeros(len(low), dtype=np.bool_)",
    ),
    Fault(
        "statistics: a changed chunk is dropped",
        "planning/pruning analysis/test_analyze changed",
        "dropped = dropped[self._compared[dropped] == 1]",
        "dropped = dropped[self._compared[dropped] >= 0]",
    ),
    Fault(
        "statistics: an unknown chunk counts as unchanged",
        "statistics/lookup aggregation/test_known unknown",
        "(now[:, 1] != UNKNOWN[1]) & self.known[chunks]",
        "(now[:, 1] != UNKNOWN[1]) | ~self.known[chunks]",
    ),
    Fault(
        "statistics: those of another decoding are used",
        "statistics/form statistics/test_form",
        "if described != subject:",
        "if described.chunks != subject.chunks:",
    ),
    Fault(
        "statistics: a chunk at the old end of an array keeps its statistics",
        "statistics/form statistics/test_form",
        'fits = pl.Series(rows["count"].fill_null(-1).to_numpy() == cells)',
        'fits = pl.Series(rows["count"].fill_null(-1).to_numpy() >= 0)',
    ),
    Fault(
        "statistics: the second call is answered with the first",
        "analysis/run analysis/test_analyze changed",
        "count = pl.when(pl.Series(same))",
        "count = pl.when(pl.Series(same | True))",
    ),
    Fault(
        "statistics: aggregates use changed chunks",
        "aggregation/known aggregation/test_known changed",
        "if known is None or not known.unchanged(np.arange(known.array.num_chunks)).all():",
        "if known is None:",
    ),
    # Units of time
    Fault(
        "time unit: a coarser unit decodes at once and rounds to the nearest",
        "coding/time_units coding/test_time_units",
        "finer=dtype.time_unit if is_finer else None",
        "finer=None",
    ),
    # STAC
    Fault(
        "stac: several assets of Zarr, and the first counts",
        "storage/stac storage/test_stac",
        "if len(found) == 1:",
        "if found:",
    ),
    # SQL
    Fault(
        "sql: a negative parameter makes a comment",
        "dialect/literals dialect/test_literals anywhere",
        'return f"({found})" if found[0] in "-0123456789" else found',
        "return found",
    ),
    Fault(
        "sql: a quote in a parameter ends the text",
        "dialect/literals dialect/test_literals",
        """value.replace("'", "''")""",
        "value",
    ),
    Fault(
        "sql: FROM of a function names a table",
        "dialect/references dialect/test_sql names",
        "begins_query = scope.wants_table or _keyword(tokens, number + 1) in _BEGINNINGS",
        "begins_query = True",
    ),
    Fault(
        "sql: a test of geometry filters beside OR",
        "dialect/geometry dialect/test_sql places",
        'word in ("OR", "XOR", "CASE")',
        'word in ("XOR", "CASE")',
    ),
    Fault(
        "sql: a test of geometry filters the right side of a left join",
        "dialect/geometry dialect/test_sql outer",
        "here = here[:1]",
        "here = here[:]",
    ),
    Fault(
        "sql: places in messages ignore replacements before them",
        "dialect/edits dialect/test_sql place",
        "shift += len(edit.text) - (edit.end - edit.start)",
        "shift += 0",
    ),
    # Interpolation
    Fault(
        "interpolation: the slope at an end lacks a label",
        "query/stencils query/test_stencils",
        '"pchip": 1, "akima": 2',
        '"pchip": 0, "akima": 2',
    ),
    Fault(
        "interpolation: of two nearest labels, the higher one",
        "query/stencils query/test_stencils",
        "np.abs(targets - labels[left]) <= np.abs",
        "np.abs(targets - labels[left]) < np.abs",
    ),
    Fault(
        "interpolation: a target outside does not extrapolate",
        "query/stencils query/test_stencils",
        "    elif not extrapolate:\n",
        "    else:\n",
    ),
    Fault(
        "pictures: a descending axis is drawn as an ascending one",
        "diagnostics/outlines diagnostics/test_svg polygon",
        "places if labels[0] < labels[-1] else len(labels) - places",
        "places",
    ),
    Fault(
        "pictures: a polygon is not turned around the Earth",
        "diagnostics/outlines diagnostics/test_svg polygon",
        "_turns(west, east, x) if outline.wraps else [0]",
        "[0]",
    ),
    Fault(
        "reports: a sample has one batch",
        "sampling/source sampling/test_points report",
        "points.iter_slices(self._batch_size(found))",
        "[points]",
    ),
    Fault(
        "reports: variables without time are read for each band",
        "regions/source regions/test_zonal without_time",
        "if not number or not self._is_constant(group.scan.columns[0].name):",
        "if True:",
    ),
    Fault(
        "remote: a stream divides each region for each step",
        "chunks/remote chunks/test_remote divides",
        "for step, (group, wanted) in enumerate(zip(groups, parts, strict=True), 1):",
        "for step, (group, wanted) in enumerate(zip(groups, map(_parts, groups), strict=True), 1):",
    ),
    Fault(
        "interpolation: a spline between labels has ends of its own",
        "query/stencils query/test_stencils",
        "return np.ones_like(needed)",
        "return needed",
    ),
    # Writing
    Fault(
        "write: units ignore shards",
        "writing/layout writing/test_write_zarr writer",
        "objects=array.shards or array.chunks",
        "objects=array.chunks",
    ),
    Fault(
        "write: a unit forgets other rows of its chunk",
        "writing/slots writing/test_write_zarr labels",
        "transpose(np.argsort(order)) if keep else None",
        "transpose(np.argsort(order)) if not keep else None",
    ),
    Fault(
        "write: an array longer than its axis is visible too early",
        "writing/zarr_target writing/test_write_zarr whole",
        "    job.write((target.sealed() if travels else target).zarr_store)\n    store = target.zarr_store()\n",
        "    store = target.zarr_store()\n"
        "    for slot in job.layout.slots.values():\n"
        "        key, content = sync(longer_document(store, slot.path, 0, job.grows[1] if job.grows else 3))\n"
        '        target.write(key.removeprefix(f"{target.name}/"), partial(_put, content))\n'
        "    zarr.consolidate_metadata(store, path=target.name)\n"
        "    job.write((target.sealed() if travels else target).zarr_store)\n",
    ),
    Fault(
        "write: conditions drop labels",
        "writing/plans writing/test_write_zarr plans",
        'return column.role == "data" and',
        "return",
    ),
    Fault(
        "write: a value equal to the fill passes",
        "coding/encode writing/test_write_zarr bad_input",
        "if hidden is not None and hidden.any() and",
        "if hidden is None and",
    ),
    Fault(
        "write: present labels are appended again",
        "writing/existing writing/test_write_zarr continue",
        "found.filter(found.is_in(old.implode()))",
        "found.filter(found.is_in(old[:0].implode()))",
    ),
    # Exports
    Fault(
        "export: a file is renamed before it is whole",
        "storage/targets export/test_export dies",
        """                fill(file)
                file.flush()""",
        """                part.replace(path)
                fill(file)
                part.touch()
                file.flush()""",
    ),
    Fault(
        "export: files in the manifest are not looked for",
        "export/run export/test_export object_store",
        "return all(path in files and",
        "return all(path not in files or",
    ),
    Fault(
        "export: another state of the source is continued",
        "export/run export/test_export",
        "if earlier != header:",
        'if earlier["plan"][:0] != header["plan"][:0]:',
    ),
    Fault(
        "export: names do not follow blocks",
        "export/parquet export/test_export",
        "rank += prod(inside[:axis]) * start",
        "rank += start",
    ),
    Fault(
        "export: a NaN becomes a point",
        "export/geoparquet export/test_geoparquet",
        "absent = pl.Series(np.isnan(numbers[0]) | np.isnan(numbers[1]))",
        "absent = pl.Series(np.isnan(numbers[0]) & np.isnan(numbers[1]))",
    ),
    # The predicate
    Fault(
        "De Morgan dropped",
        "planning/predicate planning/test_predicate",
        'and_ if (kind == "and") == outcome else or_',
        'and_ if kind == "and" else or_',
    ),
    Fault(
        "not is ignored",
        "planning/predicate planning/test_predicate",
        "return self.select(parts[0], outcome=not outcome)",
        "return self.select(parts[0], outcome=outcome)",
    ),
    Fault(
        "complement of a superset",
        "planning/predicate planning/test_predicate",
        "return self.select(parts[0], outcome=not outcome)",
        "found = self.select(parts[0], outcome=outcome)\n"
        "            whole = found.boxes == ({},)\n"
        "            return Selection.nothing() if whole else self.select(parts[0], outcome=not outcome)",
    ),
    Fault(
        "null is true under not",
        "planning/predicate planning/test_predicate",
        "result = ~result",
        "result = ~result.fill_null(value=False)",
    ),
    Fault(
        "null is false wherever it stands",
        "planning/predicate planning/test_predicate",
        ".select(expr).to_series()",
        ".select(expr.fill_null(value=False)).to_series()",
    ),
    Fault(
        "xor knows one side only",
        "planning/predicate planning/test_predicate",
        "(odd & false) | (even & true)",
        "even & true",
    ),
    Fault(
        "unknown selects nothing",
        "planning/predicate planning/test_predicate",
        "self.obstacles.append(obstacle)\n        return Selection.everything()",
        "self.obstacles.append(obstacle)\n        return Selection.nothing()",
    ),
    Fault(
        "unknown is exact",
        "planning/predicate planning/test_predicate",
        "self.obstacles.append(obstacle)\n        return Selection.everything()",
        "self.obstacles.append(obstacle)\n        return Selection.everything(exact=True)",
    ),
    Fault(
        "coordinates compared in float64",
        "planning/predicate planning/test_predicate",
        "spread(self._read(name), self",
        "spread((v := self._read(name)).cast(pl.Float64 if v.dtype.is_numeric() else v.dtype), self",
    ),
    Fault(
        "wrong axis of a mask of two dimensions",
        "planning/predicate planning/test_predicate",
        "result.to_numpy().reshape(tuple(box.values()))",
        "result.to_numpy().reshape(tuple(box.values())[::-1]).T",
    ),
    Fault(
        "a coordinate's dimensions taken in row order",
        "planning/predicate planning/test_predicate",
        "self._coordinates[name], box)",
        "tuple(dim for dim in dims if dim in self._coordinates[name]), box)",
    ),
    Fault(
        "data variables known for planning",
        "planning/build scan/test_scan test_explain",
        'if column.role != "data"}',
        "}",
    ),
    # What a question is taken for
    Fault(
        "rows that only get their group's value left out",
        "query/expression query/test_selected_chunks",
        "            if not loosely:\n                return None\n",
        "",
    ),
    Fault(
        "over taken for its function though that gives rows in another order",
        "query/expression query/test_selected_chunks",
        "_grouped(expr, _MAPPINGS[:1])",
        "_grouped(expr)",
    ),
    Fault(
        "filters of what sees other rows",
        "query/expression query/test_selected_chunks",
        "if elementwise(pl.any_horizontal(values.is_null()), schema) is None or",
        "if",
    ),
    # The whole predicate
    Fault(
        "a dropped conjunct: what Polars keeps",
        "query/pushdown query/test_whole_predicates",
        "        return pl.lit(value=False)\n    return whole",
        "        return pl.lit(value=False)\n    return part",
    ),
    Fault(
        "a dropped conjunct: what is hidden in a prepared one",
        "query/pushdown query/test_whole_predicates",
        "        return pl.lit(value=False)\n    return whole",
        "        return pl.lit(value=False)\n    return whole if whole is None or fallible_parts(whole, schema) else part",
    ),
    Fault(
        "a dropped conjunct: one that fails",
        "execution/worker query/test_kept_conditions",
        "            tests.append(test)\n            if (failed := failed + 1) == len(tests):\n                raise err.error from None\n",
        "",
    ),
    Fault(
        "a dropped conjunct: one of two of the same text",
        "dataframe/source query/test_kept_conditions",
        "for text, test in tests]",
        "for text, test in dict(tests).items()]",
    ),
    Fault(
        "a dropped conjunct: in a Dask DataFrame",
        "query/scanned_frame query/test_kept_conditions",
        "steps not in map(optimized_steps, _rebuilt(scans[0], names))",
        "False",
    ),
    Fault(
        "a filter that needs other rows sees too few",
        "query/expression query/test_whole_predicates",
        "predicate=pushed_part(expr, schema))",
        "predicate=elementwise(conjuncts_of(expr)[-1], schema))",
    ),
    Fault(
        "what may fail is filtered by in any order",
        "execution/worker query/test_kept_conditions",
        "if (failed := failed + 1) == len(tests):",
        "if True:",
    ),
    Fault(
        "a condition that Polars keeps does not prune",
        "query/scanned_frame query/test_kept_conditions",
        "if kept else _with_origin(filtered, origin)",
        "if False else _with_origin(filtered, origin)",
    ),
    Fault(
        "a condition prunes below one that needs other rows",
        "query/scanned_frame query/test_kept_conditions",
        "        if kept is None:  # it needs all rows that are left here, so no condition of a later filter may prune any\n"
        "            return filtered\n",
        "        kept = kept or []\n",
    ),
    Fault(
        "a condition prunes below a mask",
        "query/scanned_frame query/test_kept_conditions",
        "        if not all(isinstance(one, pl.Expr) for one in several):\n            return None\n        found += several",
        "        found += [one for one in several if isinstance(one, pl.Expr)]",
    ),
    Fault(
        "explain runs the query",
        "query/pushdown diagnostics/test_explain",
        "        return map(_end, [None])",
        "        return iter([pl.DataFrame(schema=self._source.table.schema if self._source else {})])",
    ),
    Fault(
        "what fails on a label selects nothing",
        "planning/predicate query/test_kept_conditions",
        '            return self._unknown(f"it cannot be evaluated on coordinates: {why}")',
        "            return Selection.nothing()",
    ),
    # Where tasks run
    Fault(
        "a submission that a closing overtakes stays on the cluster",
        "execution/executors execution/test_executors overtakes",
        "        if self._is_closed:",
        "        if False:",
    ),
    Fault(
        "closing keeps the futures that nobody fetched",
        "execution/executors execution/test_executors closing_drops",
        "        self._is_closed = True\n        self._release_all()\n",
        "        self._is_closed = True\n",
    ),
    Fault(
        "an awaited scan ends with the first batch",
        "execution/run_async backends/test_async so_many_tasks",
        "is_exhausted = len(batch) < room",
        "is_exhausted = True",
    ),
    # Index sets and boxes
    Fault(
        "end of a chunk off by one",
        "indexing/index_set indexing/test_selection",
        "-(-self.stops // size)",
        "self.stops // size",
    ),
    Fault(
        "runs miss the last chunk",
        "indexing/index_set indexing/test_selection",
        "touched.stops * size",
        "(touched.stops - 1) * size",
    ),
    Fault(
        "adjacent spans stay apart",
        "indexing/index_set indexing/test_selection",
        "starts[1:] > reach[:-1]",
        "starts[1:] >= reach[:-1]",
    ),
    Fault(
        "budget of a union narrows",
        "indexing/selection indexing/test_selection",
        "merge_boxes(_in_pairs(merged)), False",
        "merged[: cls.MAX_BOXES], False",
    ),
    Fault(
        "budget of an intersection narrows",
        "indexing/selection indexing/test_selection",
        "ours = _in_pairs(ours)",
        "ours = ours[::2]",
    ),
    Fault(
        "budget of a mask narrows",
        "indexing/selection planning/test_predicate",
        "np.logical_or.reduceat",
        "np.logical_and.reduceat",
    ),
    Fault(
        "a widened mask stays exact",
        "indexing/selection planning/test_predicate",
        "step, exact = 2 * step, False",
        "step = 2 * step",
    ),
    Fault(
        "a pair keeps a dimension that one of it has not",
        "indexing/selection indexing/test_selection",
        "for box in pair) for d in pair[0] if all(d in box for box in pair)}",
        "for box in pair if d in box) for d in pair[0]}",
    ),
    Fault(
        "exact whatever is met",
        "indexing/selection indexing/test_selection",
        "self.boxes, other.boxes, self.exact and other.exact",
        "self.boxes, other.boxes, True",
    ),
    Fault(
        "exact whatever is joined",
        "indexing/selection indexing/test_selection",
        "(*self.boxes, *other.boxes), exact=self.exact and other.exact",
        "(*self.boxes, *other.boxes), exact=True",
    ),
    # The chunk grid
    Fault(
        "the last chunk of a region is missing",
        "indexing/chunk_grid indexing/test_chunk_grid",
        "-(-stop // size)",
        "stop // size + (start // size == stop // size)",
    ),
    Fault(
        "a part of a region goes to the place of a whole chunk",
        "indexing/chunk_grid indexing/test_chunk_grid",
        "slice(max(i * size - start, 0), ",
        "slice(i * size, ",
    ),
    Fault(
        "the last chunk reaches beyond the array",
        "indexing/chunk_grid indexing/test_chunk_grid",
        "min((i + 1) * size, length)) for",
        "(i + 1) * size) for",
    ),
    Fault(
        "a chunk is never read for two parts",
        "indexing/chunk_grid indexing/test_chunk_grid",
        "(c + n - gcd(c, n)) / n for",
        "max(c, n) / n for",
    ),
    # The plan
    Fault(
        "a limit cuts tasks that are still to be filtered",
        "planning/layout planning/test_plan",
        "wanted is None or self.scan.filters",
        "wanted is None",
    ),
    Fault(
        "a limit is rounded down",
        "planning/task planning/test_plan",
        "needed = -(-wanted // max(inner, 1))",
        "needed = wanted // max(inner, 1)",
    ),
    Fault(
        "no filter where the whole was widened",
        "planning/plan planning/test_plan",
        "if not (settled and c.selection.exact)",
        "if not c.selection.exact",
    ),
    Fault(
        "tasks as small as if all rows of their chunks were wanted",
        "planning/layout planning/test_task_sizes cut",
        "frame_bytes = self.unit_rows *",
        "frame_bytes = prod(self.unit.values()) *",
    ),
    Fault(
        "the memory of a task without its chunks",
        "planning/task planning/test_task_sizes cut_so",
        "return chunks + self.max_rows",
        "return self.max_rows",
    ),
    Fault(
        "boxes rounded inwards where there are too many",
        "indexing/index_set indexing/test_blocks",
        "chunks.starts * size, np.minimum(chunks.stops * size, length)",
        "chunks.starts * size, np.minimum((chunks.stops - 1) * size + 1, length)",
    ),
    Fault(
        "a rounded selection stays exact",
        "indexing/selection indexing/test_blocks",
        "return self._union(boxes, exact=False)",
        "return self._union(boxes, exact=self.exact)",
    ),
    Fault(
        "a limit refuses what it allows",
        "planning/limits planning/test_plan",
        "needed > limit",
        "needed >= limit",
    ),
    # First steps
    Fault(
        "guard: an upper bound counts as certain",
        "planning/limits planning/test_memory",
        "is_certain = not plan.filters and plan.selection.exact",
        "is_certain = True",
    ),
    Fault(
        "guard: a limit of the caller is ignored",
        "planning/limits planning/test_memory replaces",
        "if limits != Limits() or not may_exceed_memory(",
        "if not may_exceed_memory(",
    ),
    Fault(
        "guard: a collected scan is not checked",
        "query/scanned_frame planning/test_memory warns_once",
        "if may_exceed_memory(reader.table.num_rows, widths):",
        "if False:",
    ),
    Fault(
        "mistakes: any error of a filter is an error of types",
        "planning/literals planning/test_predicate",
        "if _COMPARES.search(text):",
        "if text:",
    ),
    Fault(
        "mistakes: is_between is no comparison",
        "planning/literals diagnostics/test_explanation keeps_nothing",
        "elif len(literals) == 2:",
        "elif len(literals) == 3:",
    ),
    Fault(
        "mistakes: options of an unknown scheme are refused",
        "storage/url_options api/test_mistakes left_to_it",
        "if service is None:",
        "if not options:",
    ),
    Fault(
        "mistakes: a closed client passes",
        "execution/clients api/test_mistakes client",
        'if client.status in ("closing", "closed"):',
        'if client.status == "closing":',
    ),
    Fault(
        "explanation: filters of other steps count as kept",
        "query/pushdown diagnostics/test_explanation other_steps",
        "if below and below[0].startswith(_SCAN):",
        "if below:",
    ),
    Fault(
        "Dataset: a part of an array counts as the whole",
        "convert/dataset_source scan/test_sources_held",
        "any(each != slice(None) for each in key if isinstance(each, slice))",
        "any(each == 0 for each in key if isinstance(each, slice))",
    ),
    Fault(
        "Dataset: labels are not compared",
        "convert/dataset_source scan/test_sources_held",
        "or not _equal(labels.ravel(), stored)",
        "or labels.size != len(stored)",
    ),
    Fault(
        "Dataset: a function of a dask array counts as the array",
        "convert/dataset_source scan/test_sources_held",
        "if set(layers) != {backing.name, original}:",
        "original = next(iter(layers))\n        if not layers:",
    ),
    # The order of rows
    Fault(
        "a filter before a limit, though it stands after it",
        "query/io_source scan/test_row_order before_a_filter",
        "(None, n_rows) if predicate is None else (n_rows, None)",
        "None, n_rows",
    ),
    Fault(
        "the first rows in C order across blocks",
        "table/order table/test_order first_rows",
        "for steps in (lengths, dict.fromkeys(sizes, 1)):",
        "for steps in (dict.fromkeys(sizes, 1),):",
    ),
    Fault(
        "first rows are widened",
        "planning/plan planning/test_plan first_rows",
        "return found if found.exact else replace(first, exact=False)",
        "return found",
    ),
    Fault(
        "blocks of the question's arrays",
        "planning/build scan/test_row_order belong",
        "leaves = table.leaves(columns)",
        "leaves = table.leaves(columns)\n"
        "    coordinates = {n: c for n, c in table.columns.items() if c.role != 'data'}\n"
        "    table = __import__('dataclasses').replace(table, columns=coordinates | {c.name: c for c in leaves})",
    ),
    Fault(
        "blocks from the setting",
        "table/order scan/test_row_order order_of_the_table",
        "left = BLOCK_BYTES //",
        "left = __import__('dask').config.get('rainbear-dask.task-bytes') //",
    ),
    Fault(
        "the last dimension is cut first",
        "table/order table/test_order",
        "for dim in reversed(dims):",
        "for dim in dims:",
    ),
    Fault(
        "blocks cut at one grid of several",
        "indexing/chunk_grid planning/test_plan multiple",
        "min(lcm(*lengths), _MAX_MULTIPLE * max(lengths))",
        "max(lengths)",
    ),
    Fault(
        "rows of several blocks are not sorted",
        "execution/worker scan/test_row_order said_of_it",
        "if in_order(along, scan.blocks):",
        "if True:",
    ),
    Fault(
        "rows of one block change places",
        "table/order table/test_order sorted",
        'kind="stable")',
        'kind="stable")[::-1]',
    ),
    Fault(
        "a block is cut along a second dimension",
        "planning/tiling planning/test_tiling stretches",
        "if level.is_unit and len(positions) > 1:",
        "if False:",
    ),
    Fault(
        "blocks share a tile out of order",
        "planning/tiling planning/test_tiling over_its_bounds",
        "max_cells if self._is_in_order(union) else min(max_cells, MAX_SORTED)",
        "max_cells",
    ),
    Fault(
        "columns of blocks share a tile out of order",
        "planning/tiling planning/test_tiling over_its_bounds",
        "if not level.within_block and not self._may_share(union, dim, held):",
        "if False:",
    ),
    Fault(
        "a tile ends within a unit",
        "planning/tiling planning/test_tiling unit_of_the_grid",
        "self._levels.append(_Level(dim, grain, within_block=True, is_unit=True))",
        "self._levels.append(_Level(dim, 1, within_block=True, is_unit=True))",
    ),
    Fault(
        "columns that boxes fill in part are counted as one",
        "planning/tiling planning/test_tiling fill_in_part",
        "len(sets) * len(some) <= _MAX_COMPARED",
        "False",
    ),
    Fault(
        "the product around boxes is read",
        "execution/worker scan/test_row_order order_of_the_table",
        "wanted = np.full(shape, not task.boxes)",
        "wanted = np.full(shape, True)",
    ),
    Fault(
        "boxes are no part of a task's key",
        "execution/graph scan/test_row_order keys",
        "for product in (task.index, *task.boxes)",
        "for product in (task.index,)",
    ),
    Fault(
        "a filter is evaluated for each row",
        "execution/worker scan/test_row_order own_dimensions",
        "own = self.cells.along({dim for column in test.columns for dim in column.dims})",
        "own = self.cells",
    ),
    Fault(
        "a limit reads a whole first task",
        "planning/layout planning/test_predicate_forms ten",
        "self.tiling.from_small() if self.starts_small else self.tiling",
        "self.tiling",
    ),
    Fault(
        "rows of overlapping boxes are counted twice",
        "planning/task scan/test_row_order any_number",
        "dict.fromkeys(dims, 1), [dict(zip(dims, box, strict=True)) for box in self.boxes]).num_rows",
        "dict.fromkeys(dims, 10**9), [dict(zip(dims, box, strict=True)) for box in self.boxes]).num_rows",
    ),
    # Chunks of a folder
    Fault(
        "a chunk of zstd may be short",
        "codecs/decompress chunks/test_local",
        "if content != len(out):",
        "if content is None:",
    ),
    Fault(
        "a chunk may be short",
        "chunks/decoders chunks/test_local",
        "if length != len(out):",
        "if length > len(out):",
    ),
    Fault(
        "a chunk of blosc may be cut",
        "codecs/decompress chunks/test_local",
        "or stated != length",
        "or stated < length",
    ),
    Fault(
        "of chunks of a shard that are read together each is the first",
        "chunks/array chunks/test_local",
        "raw[start - first : stop - first]",
        "raw[: stop - start]",
    ),
    Fault(
        "a small chunk at an edge is taken whole",
        "chunks/local chunks/test_local",
        "out[place] = chunk[tuple([step.part for step in steps])]",
        "out[place] = chunk[tuple([slice(step.part.stop - step.part.start) for step in steps])]",
    ),
    Fault(
        "a small chunk is put into place although its neighbour shares the place",
        "chunks/local chunks/test_local region_of_small",
        "is_row = all(len(steps) == 1 and steps[0].is_whole for steps in along[1:])",
        "is_row = out.shape[1:] == shape[1:]",
    ),
    Fault(
        "a missing small chunk is never a deleted store",
        "chunks/local chunks/test_local",
        "        if missing:",
        "        if False:",
    ),
    Fault(
        "tasks begin threads as if they were alone",
        "resources/threads chunks/test_local",
        "free = _busy < _limit()",
        "free = True",
    ),
    # What a store may make of memory
    Fault(
        "what stands behind a small chunk is passed over",
        "codecs/decompress chunks/test_local",
        "allow_extra_data=False",
        "allow_extra_data=True",
    ),
    Fault(
        "a stream is inflated to its end",
        "codecs/decompress scan/test_hostile_stores folder",
        "            if held > limit:",
        "            if held > 2**40:",
    ),
    Fault(
        "a chunk in a shard may have any length",
        "chunks/sharding scan/test_hostile_stores folder",
        'check_size(length, self.inner_limit, f"chunk {place} in the index of the shard")',
        "pass",
    ),
    Fault(
        "clouds: an emulator gets credentials",
        "storage/gcs storage/test_clouds emulator",
        "return _ANONYMOUS if is_emulator and token is None else",
        "return _ANONYMOUS if False else",
    ),
    Fault(
        "clouds: a service account is mixed with the environment",
        "storage/gcs storage/test_clouds not_mixed",
        "    if any(name in os.environ for name in _KEYS_OF_OBSTORE):\n        raise",
        "    if False:\n        raise",
    ),
    Fault(
        "clouds: anonymous requests look for credentials",
        "storage/gcs storage/test_clouds emulator",
        '{"skip_signature": True, "bearer_token": "anonymous"}',
        '{"skip_signature": False, "bearer_token": "anonymous"}',
    ),
    Fault(
        "clouds: a client secret yields to a key of the environment",
        "storage/azure storage/test_clouds service_principal",
        '"credential_type": "client_secret",',
        '"client_id": given["client_id"],',
    ),
    Fault(
        "clouds: the environment's connection string wins over another account",
        "storage/azure storage/test_clouds another_account",
        'return found if named in (None, found.get("account_name")) else {}',
        "return found",
    ),
    Fault(
        "clouds: no credentials on Azure are found out by requests",
        "storage/azure storage/test_clouds nothing_is_requested",
        "    raise StoreAccessError(",
        "    return {}\n    raise StoreAccessError(",
    ),
    Fault(
        "clouds: a container counts as a user",
        "redaction storage/test_clouds container",
        '(rf"(?<=://){_CONTAINER}',
        '(rf"(?<=://)',
    ),
    Fault(
        "clouds: an option of fsspec alone is dropped",
        "storage/obstore_settings storage/test_clouds only_fsspec",
        "    refuse_rest(given.keys() - service.translated)\n",
        "",
    ),
    Fault(
        "clouds: connections forget the environment of Azure",
        "storage/connect storage/test_clouds another_environment",
        "if name.startswith(ENVIRONMENT)}",
        'if name.startswith("AWS_")}',
    ),
    Fault(
        "a pipe is waited for",
        "storage/local_files scan/test_hostile_stores folder",
        'getattr(os, "O_NONBLOCK", 0)',
        "0",
    ),
    Fault(
        "a response that is cut short is an error at once",
        "storage/requests storage/test_cut_responses",
        "transient = _TRUNCATED if isinstance(store, ObjectStore) else _TRANSIENT",
        "transient = re.compile('$^')",
    ),
    Fault(
        "the index of a shard is not checked",
        "chunks/sharding chunks/test_local",
        "if self.checked and",
        "if not self.checked and",
    ),
    Fault(
        "parts of a shard begin with it",
        "chunks/local chunks/test_local",
        "yield _FilePart(array, index, part, out[place][place_of_part], root)",
        "yield _FilePart(array, index, inside, out[place][place_of_part], root)",
    ),
    Fault(
        "a chunk is missing though the store is",
        "chunks/local chunks/test_local",
        "if not any(Path(",
        "if all(Path(",
    ),
    Fault(
        "an error on another thread is lost",
        "resources/threads chunks/test_local",
        "            raise self._errors[min(self._errors)]",
        "            pass",
    ),
    # Chunk groups
    Fault(
        "arrays of a group share a buffer",
        "resources/buffers execution/test_groups",
        "self._array(number, shape, np.dtype(dtype))",
        "self._array(min(number, 0), shape, np.dtype(dtype))",
    ),
    Fault(
        "a group has the mask of another",
        "execution/group_places execution/test_groups",
        "cells.wanted[box]",
        "cells.wanted[boxes[0]]",
    ),
    Fault(
        "a group at the edge is as long as the others",
        "execution/group_places execution/test_groups",
        "np.array([sizes[dim] for sizes in lengths])[number_of]",
        "lengths[0][dim]",
    ),
    Fault(
        "a group spans chunks that are not neighbours",
        "execution/group_places execution/test_groups",
        "np.diff(numbers) != 1",
        "np.diff(numbers) < 0",
    ),
    Fault(
        "values of a group are not taken at its positions",
        "execution/groups execution/test_groups",
        "if len(positions) < values.shape[axis]:",
        "if len(positions) + 1 < values.shape[axis]:",
    ),
    Fault(
        "a gate stops at the value behind its bound",
        "execution/gates execution/test_gates",
        "lower, upper = _values([low, high], native)",
        "lower, upper = _values([low - 1, high + 1], native)",
    ),
    Fault(
        "a gate stops NaN",
        "execution/gates execution/test_gates",
        "        passing(stored, mask)\n        mask |= np.isnan(stored)",
        "        passing(stored, mask)",
    ),
    Fault(
        "a gate stops values because others are fill values",
        "execution/gates execution/test_gates",
        "every = replace(decoding, fills=(), nan_is_fill=False)",
        "every = decoding",
    ),
    Fault(
        "sparse groups are lost beside dense ones",
        "execution/survivors execution/test_survivors",
        "self._mask.reshape(-1)[rows] = True",
        "pass",
    ),
    Fault(
        "a group that failed is passed over after a retry",
        "chunks/read chunks/test_remote stream",
        "groups[done:]",
        "groups[done + 1:]",
    ),
    # Memory that is used again
    Fault(
        "memory is taken back while a view of it is left",
        "resources/buffers resources/test_buffers",
        "weakref.finalize(lent, ",
        "weakref.finalize(lent[:], ",
    ),
    Fault(
        "of memory that waits the newest goes first",
        "resources/buffers resources/test_buffers",
        "for key in list(_idle):",
        "for key in reversed(list(_idle)):",
    ),
    Fault(
        "columns of other values share memory",
        "table/tidy table/test_tidy",
        "flat.dtype, flat.tobytes(), dims",
        "flat.dtype, dims",
    ),
    Fault(
        "columns along other dimensions share memory",
        "table/tidy table/test_tidy",
        "flat.tobytes(), dims, shape, tuple(box)",
        "flat.tobytes(), shape, tuple(box)",
    ),
    Fault(
        "an interval of whole numbers is taken for a comparison that cannot fail",
        "query/pushdown query/test_kept_conditions",
        "dtype is not None and dtype.is_float() and",
        "dtype is not None and",
    ),
    # Chunks of other stores
    Fault(
        "a part of a shard is taken from the part before",
        "chunks/fetch chunks/test_remote",
        "[start - at : stop - at]",
        "[: stop - start]",
    ),
    Fault(
        "a missing chunk of a deleted store is a fill value",
        "chunks/remote chunks/test_remote",
        "await check_array_exists(self._store, part.key, part.array.documents)",
        "pass",
    ),
    Fault(
        "what is given up is fetched all the same",
        "chunks/fetch chunks/test_remote",
        "if not task.done():",
        "if task.done():",
    ),
    Fault(
        "what came damaged is not asked for again",
        "chunks/read chunks/test_remote",
        "return None if is_local(store) else _refetch",
        "return None",
    ),
    # Aggregations where the chunks are
    Fault(
        "a part without a row has a first row",
        "aggregation/row_states engine/test_differential",
        "lambda ends: build(ends.filter(found > 0))",
        "build",
    ),
    Fault(
        "parts with other means have no distance",
        "aggregation/row_states engine/test_differential",
        "squares.sum() + (n * apart * apart).filter(n > 0).sum()",
        "squares.sum()",
    ),
    Fault(
        "labels of connected positions spread once",
        "aggregation/cohorts aggregation/test_cohorts",
        "if (lower == labels).all():",
        "if True:",
    ),
    Fault(
        "all groups are held at once",
        "aggregation/cohorts engine/test_cohorts",
        "if num_groups * question.group_bytes > COHORT_BYTES and not question.ordered:",
        "if False:",
    ),
    Fault(
        "states of another cohort are added",
        "aggregation/answer engine/test_cohorts",
        "if answer is None or owner is not cohort:",
        "if answer is None:",
    ),
    Fault(
        "cells that all count are merged once",
        "aggregation/merging engine/test_differential",
        "replace(found, factor=found.factor + product.factor)",
        "product",
    ),
    Fault(
        "threads merge in no tree",
        "execution/trees execution/test_trees",
        "yield folded([result, *islice(results, sizes.popleft() - 1)], merge)",
        "yield merge([result, *islice(results, sizes.popleft() - 1)])",
    ),
    Fault(
        "whole groups in any order",
        "engine/row_questions engine/test_rows",
        "if (asked.ordered or asked.by_window) and not keeps_order(plan, sets):",
        "if False:",
    ),
    Fault(
        "groups larger than the rows travel",
        "aggregation/rows engine/test_cluster",
        "return part if part.__sizeof__() <= rows.__sizeof__() else",
        "return part if True else",
    ),
    Fault(
        "threads group many values in row space",
        "engine/row_questions engine/test_rows",
        "if cells * MIN_ROWS_FOR_EACH_GROUP > rows_of_task:",
        "if False:",
    ),
    Fault(
        "a masked NaN is not looked for",
        "aggregation/reduction engine/test_differential",
        'if any(np.isnan(first[kind]).any() for kind in ("sum", "fsum", "min", "max") if kind in first):',
        "if False:",
    ),
    Fault(
        "equal values along a plain axis count once",
        "aggregation/groups engine/test_differential",
        "factor = prod(self.box[axis] for axis in self.plain if values.shape[axis] == 1)",
        "factor = 1",
    ),
    Fault(
        "cells of a group that are not neighbours",
        "aggregation/groups aggregation/test_groups",
        "if part.order is not None:",
        "if False:",
    ),
    Fault(
        "NaN exceeds no number",
        "aggregation/terms aggregation/test_terms",
        'lambda x, value: x > value if x.dtype.kind != "f" else ~(x <= value)',
        "lambda x, value: x > value",
    ),
    Fault(
        "a filter is evaluated on dropped cells",
        "aggregation/terms engine/test_rewriting",
        "cells = CellMask(box, None if mask is None else np.broadcast_to(mask, tuple(box.values())))",
        "cells = CellMask(box)",
    ),
    Fault(
        "deviations between parts are left out",
        "aggregation/states engine/test_differential",
        'squares[at] += parts["m2"] + np.where((n > 0) & (more_n > 0), between, 0.0)',
        'squares[at] += parts["m2"]',
    ),
    Fault(
        "a node of other fields is taken",
        "engine/serialized engine/test_rewriting",
        "if kind_of(mine) != kind_of(theirs) or _without_inputs(mine) != _without_inputs(theirs):",
        "if kind_of(mine) != kind_of(theirs):",
    ),
    Fault(
        "a key of a variable",
        "engine/questions engine/test_rewriting",
        "if not is_coordinate_key(key, rows):",
        "if False:",
    ),
    Fault(
        "the key of a task lacks its question",
        "aggregation/partial engine/test_cluster",
        'return "partial", content_of(task), tokenize(repr(task.operands)), tokenize(codes)',
        'return "partial", content_of(task)',
    ),
    Fault(
        "an output that compares groups",
        "engine/aggregates engine/test_rewriting",
        "if elementwise(left, schema) is None:",
        "if False:",
    ),
    Fault(
        "rows that no group may have count",
        "aggregation/answer engine/test_differential",
        "kept = np.flatnonzero(num_rows) if question.keys and not num_rows.all() else None",
        "kept = None",
    ),
    Fault(
        "one chunk of a shorter variable is all of it",
        "execution/columns execution/test_survivors",
        "if len(taken) == 1 and taken[0][1].shape == shape:",
        "if len(taken) == 1:",
    ),
    # Joins, orders and windows of unmodified queries
    Fault(
        "a side whose rows all count is pruned",
        "engine/pruning engine/test_pruning",
        '"Anti": ("right",),',
        '"Anti": ("left", "right"),',
    ),
    Fault(
        "join_asof finds the nearest label on one side alone",
        "engine/keys engine/test_pruning",
        '["backward", "forward"] if options["strategy"] == "nearest"',
        '["backward"] if options["strategy"] == "nearest"',
    ),
    Fault(
        "an inner join follows the pruned side",
        "engine/pruning engine/test_pruning",
        'if how == "Inner" and options["maintain_order"] == "none" and self._is_longer:',
        "if False:",
    ),
    Fault(
        "cells of keys in the box of another chunk",
        "indexing/cells indexing/test_cells",
        "units, cells = units[order], cells[order]",
        "units = units[order]",
    ),
    Fault(
        "tasks return the rows between keys",
        "execution/worker engine/test_pruning",
        "wanted &= cells.mask(shape)",
        "pass",
    ),
    Fault(
        "a scan below two joins is pruned for both",
        "engine/serialized engine/test_pruning",
        "copy = {kind_of(node): {**fields_of(node), name: below}}",
        "copy = node\n            fields_of(node)[name] = below",
    ),
    Fault(
        "a bound drops null, which comes first",
        "execution/best engine/test_ordered",
        "gate = None if gate is None else with_fills(gate, self._column)",
        "pass",
    ),
    Fault(
        "labels of a bound that null precedes",
        "engine/ordered engine/test_ordered",
        "nulls_come_first = len(values) < len(labelled) and not order.nulls_last[0]",
        "nulls_come_first = False",
    ),
    Fault(
        "null finds no group over null",
        "engine/over engine/test_over",
        'how="left", nulls_equal=True,',
        'how="left", nulls_equal=False,',
    ),
    # Regions
    Fault(
        "a polygon wider than a turn tested once",
        "geo/kernels geo/test_expressions",
        "            if not self.wraps:\n                break",
        "            break",
    ),
    Fault(
        "a null coordinate is outside a polygon",
        "geo/kernels geo/test_expressions",
        "return _with_nulls(pl.Series(points.name, self.test(x, y)), absent)",
        "return pl.Series(points.name, self.test(x, y))",
    ),
    Fault(
        "two halves of a polygon have a boundary between them",
        "geo/kernels geo/test_expressions",
        "if wraps and strict and east - west >= 360:",
        "if wraps and strict and east - west >= 720:",
    ),
    Fault(
        "a polygon in another CRS is compared",
        "geo/checks geo/test_expressions",
        'check_crs(crs, table, columns[1][0], columns[0][0], "the filter\'s geometry")',
        "pass",
    ),
    Fault(
        "a circle is narrow at high latitudes",
        "geo/expressions geo/test_expressions",
        "asin(min(sin(angle) / cos(radians(latitude)), 1))",
        "angle",
    ),
    Fault(
        "a share of a cell at a pole is that of a whole cell",
        "regions/coverage regions/test_zonal",
        "share = fraction * stretch_y[row] * stretch_x[column]",
        "share = fraction",
    ),
    Fault(
        "rows of a zone counted from the north on any axis",
        "regions/coverage regions/test_zonal",
        "row = shape[0] - 1 - row if not uniform or y.nominal[-1] > y.nominal[0] else row",
        "row = shape[0] - 1 - row if not uniform else row",
    ),
    Fault(
        "no vertex where a polygon crosses a cell",
        "regions/coverage regions/test_zonal",
        "    return np.insert(ring, segment + 1, crossings, axis=0)",
        "    return ring",
    ),
    Fault(
        "variances joined as if means were equal",
        "regions/statistics regions/test_zonal",
        "self.squares[place] += other.squares + between",
        "self.squares[place] += other.squares",
    ),
    Fault(
        "a task of zones read whole for one position of a filter",
        "regions/layout regions/test_zonal",
        "chunk, length = self.chunks[dim], self.lengths[dim]",
        "chunk, length = self.lengths[dim], self.lengths[dim]",
    ),
    Fault(
        "keys of tasks of zones without their weights",
        "regions/task regions/test_zonal",
        "[part.token for part in task.parts], task.y",
        "len(task.parts), task.y",
    ),
    Fault(
        "a variable without the first dimension read for the first band alone",
        "regions/source regions/test_zonal",
        "kept = {name: each for name, each in sums.items() if self._is_constant(name)}",
        "kept = {}",
    ),
    # Points
    Fault(
        "points: a tie goes to the smaller label",
        "sampling/stencils sampling/test_sample search",
        "keys - labels[left] < labels[right] - keys",
        "keys - labels[left] <= labels[right] - keys",
    ),
    Fault(
        "points: half a step beyond the end is outside",
        "sampling/stencils sampling/test_points half_a_step",
        "keys > high",
        "keys >= high",
    ),
    Fault(
        "points: a corner without weight is read",
        "sampling/stencils sampling/test_points labels_read",
        "places[on_label] = places[on_label, hit",
        "_ = places[on_label, hit",
    ),
    Fault(
        "points: a point of two chunks is finished in one",
        "sampling/gather sampling/test_sample interp",
        "inside &= stencil.places[:, corner] // size == first",
        "inside |= stencil.places[:, corner] // size == first",
    ),
    Fault(
        "points: values of the dimensions that points lack are mixed up",
        "sampling/gather sampling/test_sample interp",
        ".transpose(0, 2, 1).reshape(-1)",
        ".reshape(-1)",
    ),
    Fault(
        "points: a null corner is taken for zero",
        "sampling/task sampling/test_points excludes_are_null",
        "return series if nulls is None else only_where(series, ~nulls)",
        "return series",
    ),
    Fault(
        "points: infinity without weight spoils a value",
        "sampling/evaluate sampling/test_points infinity",
        "np.where(weight == 0, 0, value * weight)",
        "value * weight",
    ),
    Fault(
        "points: a finer key is rounded to the unit of the labels",
        "sampling/locate sampling/test_points finer",
        "valid = valid & are_whole(points, dtype)",
        "pass",
    ),
    Fault(
        "points: a limit counts points instead of rows",
        "sampling/source sampling/test_sample engine",
        "frame, n_rows = frame.head(n_rows), max(n_rows - frame.height, 0)",
        "pass",
    ),
    Fault(
        "points: a filter of values is applied to points before they have any",
        "sampling/source sampling/test_sample engine",
        "of_points = n_rows is None and",
        "of_points =",
    ),
]


def copied(folder: Path) -> None:
    """Copy the files that the tests need."""
    ignored = shutil.ignore_patterns("__pycache__", "results")
    for name in ("rainbear_dask", "tests", "benchmarks"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", folder)


def failed_test(folder: Path, *arguments: str) -> str | None:
    """Run tests on the package in a folder. Return the name of the first that fails."""
    command = [sys.executable, "-m", "pytest", "-x", "-v", "--tb=line", "-p", "no:cacheprovider", *TIMED, *arguments]
    # Python would use the compiled code of a module with the same length and the same second of change
    settings = {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1", "HYPOTHESIS_PROFILE": "dev"}
    done = subprocess.run(  # noqa: S603  our own command
        command, cwd=folder, env=os.environ | settings, capture_output=True, text=True, check=False
    )
    if done.returncode == 0:
        return None
    found = re.search(r"^FAILED tests/\S*::(\S+)", done.stdout, flags=re.MULTILINE)
    if done.returncode == 1 and not found and "Timeout" in done.stdout + done.stderr:
        *_, found = re.finditer(r"^tests/\S*::(\S+)", done.stdout, flags=re.MULTILINE)
    if done.returncode != 1 or not found:
        raise SystemExit(f"the tests did not run:\n{done.stdout}{done.stderr}")
    return found[1]


def killer(fault: Fault) -> str | None:
    """Return the name of the test that detects a fault."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as name:
        folder = Path(name)
        copied(folder)
        module, tests, *narrowed = fault.place.split()
        path = folder / "rainbear_dask" / f"{module}.py"
        text = path.read_text()
        if text.count(fault.right) != 1:
            raise SystemExit(f"{fault.name}: {fault.right!r} stands {text.count(fault.right)} times in {path.name}")
        path.write_text(text.replace(fault.right, fault.wrong))
        return failed_test(folder, f"tests/{tests}.py", *(["-k", *narrowed] if narrowed else []))


def main() -> None:
    """Print a row for each fault whose name has one of the given words. Exit with 1 if a fault survives."""
    words = sys.argv[1:] or [""]
    faults = [fault for fault in FAULTS if any(word in fault.name for word in words)]
    with tempfile.TemporaryDirectory(prefix="mutants-") as name:
        copied(Path(name))
        tests = sorted({f"tests/{fault.place.split()[1]}.py" for fault in faults} - {"tests/scan/test_scan.py"})
        if seen := failed_test(Path(name), *tests):
            raise SystemExit(f"{seen} fails without any fault")
    survivors = 0
    for fault in faults:
        seen = killer(fault)
        survivors += seen is None
        print(f"{fault.name:52}{fault.place.split()[0]:12}{seen or 'SURVIVED'}", flush=True)
    print(f"{len(faults)} faults, {survivors} survived")
    raise SystemExit(survivors > 0)


if __name__ == "__main__":
    main()
