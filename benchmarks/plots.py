"""Figures of the measurements, as SVG."""

from collections.abc import Mapping, Sequence
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from benchmarks.growth import Series
    from benchmarks.run import Measure

MARKERS = {"rainbear_dask": "o", "rainbear": "s", "xarray-sql": "^", "xarray": "D"}
COLOURS = {"rainbear_dask": "tab:blue", "rainbear": "tab:red", "xarray-sql": "tab:green", "xarray": "tab:gray"}


def draw_ratios(measures: Sequence["Measure"], path: Path) -> None:
    """Draw a line for each layout and query, with times as multiples of the time of rainbear_dask."""
    ours = {(each.layout, each.query): each.seconds for each in measures if each.reader == "rainbear_dask"}
    labels = [f"{layout}: {query}" for layout, query in ours]
    figure = Figure(figsize=(9, 1.2 + 0.2 * len(labels)), layout="constrained")
    axes = figure.subplots()
    axes.axvline(1, color=COLOURS["rainbear_dask"], label="rainbear_dask")
    for reader, marker in MARKERS.items():
        points = [
            (each.seconds / ours[each.layout, each.query], list(ours).index((each.layout, each.query)))
            for each in measures
            if each.reader == reader != "rainbear_dask" and max(each.seconds, ours[each.layout, each.query]) < inf
        ]
        if points:
            axes.scatter(*zip(*points, strict=True), s=18, marker=marker, color=COLOURS[reader], label=reader)
    axes.set(xscale="log", xlabel="time, as a multiple of that of rainbear_dask", ylim=(len(labels) - 0.5, -0.5))
    axes.set_yticks(range(len(labels)), labels, fontsize=7)
    axes.grid(visible=True, alpha=0.3)
    figure.legend(loc="outside upper center", ncols=len(MARKERS))
    _save(figure, path)


def draw_growth(series: Mapping[str, Sequence["Series"]], path: Path) -> None:
    """Draw a panel for each kind of growth: time of each reader over size, with slopes."""
    figure = Figure(figsize=(4 * len(series), 3.6), layout="constrained")
    for axes, (title, lines) in zip(figure.subplots(1, len(series), squeeze=False)[0], series.items(), strict=True):
        for line in lines:
            label = f"{line.reader}: slope {line.slope:.2f}"
            axes.plot(line.sizes, line.seconds, MARKERS[line.reader] + "-", color=COLOURS[line.reader], label=label)
        axes.set(xscale="log", yscale="log", title=title, xlabel=lines[0].unit, ylabel="seconds")
        axes.grid(visible=True, alpha=0.3)
        axes.legend(fontsize=8)
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    # text as text, and the same file for the same figures
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "benchmarks"}):
        figure.savefig(path, metadata={"Date": None})
