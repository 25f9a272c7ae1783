"""The dossier's plots: SVG with the page's colours and fonts, legible in light, dark and print."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

WIDTH_POINTS = 440
"""Drawn for a column of 350 to 460 CSS pixels, so that 12-point text stays readable on a phone."""

# Matplotlib knows no CSS variables: each colour below is a placeholder that is replaced in the finished SVG.
_COLOURS = {
    "#010101": "var(--ink)",
    "#020202": "var(--muted)",
    "#030303": "var(--line)",
    "#040404": "var(--accent)",
    "#050505": "var(--base)",
    "#060606": "var(--champion)",
    "#070707": "var(--paper)",
    "#080808": "var(--fill)",
}
INK, MUTED, LINE, ACCENT, BASE, CHAMPION, PAPER, FILL = _COLOURS
ARM_COLOURS = {"base": BASE, "champion": CHAMPION, "candidate": ACCENT}
_ARM_MARKERS = {"base": "o", "champion": "D", "candidate": "o"}
_STYLE = {
    "svg.fonttype": "none",  # text stays text: it can be selected, searched and read aloud
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 12,
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": INK,
    "xtick.labelsize": 10.5,
    "ytick.labelsize": 12,
    "legend.frameon": False,
    "legend.fontsize": 11.5,
}


@dataclass(frozen=True)
class Step:
    """One bar of the funnel: the rows after a stage, and the rows that it removed."""

    name: str
    num_rows: int
    num_removed: int


@dataclass(frozen=True)
class Whisker:
    """One model's score with its interval, where there is one."""

    arm: str
    value: float
    low: float | None
    high: float | None


def plot_funnel(steps: Sequence[Step], label: str) -> str:
    """Horizontal bars, one a stage, with the rows left and the rows removed."""
    with matplotlib.rc_context(_STYLE):
        figure, axes = _canvas(28 * len(steps) + 12)
        top = max((step.num_rows + step.num_removed for step in steps), default=1) or 1
        for place, step in enumerate(steps):
            axes.barh(place, step.num_rows + step.num_removed, height=0.62, color=FILL, linewidth=0)
            axes.barh(place, step.num_rows, height=0.62, color=ACCENT, linewidth=0)
            removed = f"  \u2212{step.num_removed:,}" if step.num_removed else ""
            axes.text(1.02 * top, place, f"{step.num_rows:,}", va="center", ha="left")
            axes.text(1.2 * top, place, removed, va="center", ha="left", color=MUTED, fontsize=10.5)
        axes.set_yticks(range(len(steps)), [step.name for step in steps])
        axes.set_ylim(len(steps) - 0.5, -0.5)
        axes.set_xlim(0, 1.42 * top)
        axes.set_xticks([])
        for side in axes.spines.values():
            side.set_visible(False)
        axes.tick_params(length=0)
        return _svg(figure, label)


def plot_curves(train: Sequence[tuple[float, float]], held_out: Sequence[tuple[float, float]], label: str) -> str:
    """Loss over steps: training as a line, validation as dots on a line."""
    with matplotlib.rc_context(_STYLE):
        figure, axes = _canvas(230)
        if train:
            axes.plot(*zip(*train, strict=True), color=BASE, linewidth=1.6, label="training", solid_capstyle="round")
        if held_out:
            axes.plot(
                *zip(*held_out, strict=True), color=ACCENT, linewidth=1.6, marker="o", markersize=4.5, label="validation"
            )
        axes.set_ylim(bottom=0)
        axes.margins(x=0.03)
        axes.set_xlabel("step")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
        axes.tick_params(axis="y", labelcolor=MUTED, labelsize=10.5)
        _open_frame(axes)
        if train or held_out:
            axes.legend(loc="upper right")
        return _svg(figure, label)


def plot_scores(rows: Sequence[tuple[str, Sequence[Whisker]]], label: str) -> str:
    """Dots with whiskers: one line a metric, one dot a model; all metrics run from 0 to 1."""
    arms = list(dict.fromkeys(whisker.arm for _, whiskers in rows for whisker in whiskers))
    gap = 0.2
    with matplotlib.rc_context(_STYLE):
        figure, axes = _canvas(42 * len(rows) + 66)
        for place, (_, whiskers) in enumerate(rows):
            for whisker in whiskers:
                at = place + gap * (arms.index(whisker.arm) - (len(arms) - 1) / 2)
                colour = ARM_COLOURS.get(whisker.arm, INK)
                if whisker.low is not None and whisker.high is not None:
                    axes.plot([whisker.low, whisker.high], [at, at], color=colour, linewidth=2, solid_capstyle="round")
                first = place == 0 and whisker.arm in arms
                axes.plot(
                    [whisker.value],
                    [at],
                    linestyle="none",
                    marker=_ARM_MARKERS.get(whisker.arm, "s"),
                    markersize=6 if whisker.arm != "champion" else 5,
                    markerfacecolor=PAPER if whisker.arm == "base" else colour,
                    markeredgecolor=colour,
                    markeredgewidth=1.6,
                    label=whisker.arm if first else None,
                    zorder=3,
                )
        axes.set_yticks(range(len(rows)), [name for name, _ in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlim(-0.02, 1.02)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])
        axes.grid(axis="x", color=LINE, linewidth=0.6)
        axes.set_axisbelow(True)
        for side in axes.spines.values():
            side.set_visible(False)
        axes.tick_params(length=0)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=len(arms), handletextpad=0.3, columnspacing=1.4)
        return _svg(figure, label)


def _canvas(height_points: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH_POINTS / 72, height_points / 72), layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.add_subplot()
    axes.patch.set_alpha(0)
    return figure, axes


def _open_frame(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color=LINE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)


def _svg(figure: Figure, label: str) -> str:
    """The figure as an ``<svg>`` element: page colours and fonts, ids of its own, no fixed size, no metadata."""
    buffer = io.StringIO()
    # With the label as salt, ids are not random: the same evidence gives the same bytes.
    with matplotlib.rc_context({"svg.hashsalt": label}):
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
    for placeholder, colour in _COLOURS.items():
        text = text.replace(placeholder, colour)
    text = re.sub(r"font-family: [^;\"]*", "font-family: var(--sans)", text)
    prefix = re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-")
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = re.sub(r"url\(#", f"url(#{prefix}-", text)
    text = re.sub(r'href="#', f'href="#{prefix}-', text)
    head, rest = text.split(">", 1)
    view_box = re.search(r'viewBox="[^"]*"', head)
    assert view_box is not None
    return f'<svg xmlns="http://www.w3.org/2000/svg" {view_box[0]} role="img" aria-label="{_escape(label)}">{rest}'


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
