"""Curves with error bars as one SVG file: no plotting library, and text that a browser can search."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 640, 400
LEFT, RIGHT, TOP, BOTTOM = 70, 20, 40, 50  # around the axes
COLOURS = ("#1f6fb4", "#d1620f", "#2f8a3a", "#8250b8", "#b02a37")
TICKS = 5
FONT = 'font-family="sans-serif" font-size="12"'


@dataclass(frozen=True)
class Curve:
    """points: (x, mean, spread); a spread of 0 draws no error bar."""

    name: str
    points: Sequence[tuple[float, float, float]]


def nice_ticks(low: float, high: float) -> list[float]:
    """About TICKS round numbers that cover low to high."""
    rough = (high - low or 1.0) / TICKS
    power = 10 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first = math.floor(low / step + 1e-9)
    ticks = [first * step]
    while ticks[-1] < high - 1e-9 * step:
        ticks.append((first + len(ticks)) * step)
    return [round(tick, 12) for tick in ticks]


def chart(
    title: str,
    x_name: str,
    y_name: str,
    curves: Sequence[Curve],
    x_ticks: Sequence[float] | None = None,
    band: float = 0.0,
) -> str:
    """An SVG document. x_ticks: the values of x where there are few, which are then evenly spaced; band: shaded above
    and below the first curve's first point, 0 for none."""
    xs = [x for curve in curves for x, _, _ in curve.points]
    ends = [mean + sign * spread for curve in curves for _, mean, spread in curve.points for sign in (-1, 1)]
    ends += [curves[0].points[0][1] + sign * band for sign in (-1, 1)] if band else []
    if not xs or not all(map(math.isfinite, (*xs, *ends))):
        raise ValueError("expected curves of finite points")
    places = list(x_ticks) if x_ticks is not None else nice_ticks(min(xs), max(xs))
    levels = nice_ticks(min(ends), max(ends))

    def across(x: float) -> float:
        if x_ticks is not None:
            share = places.index(x) / max(len(places) - 1, 1)
        else:
            share = (x - places[0]) / (places[-1] - places[0] or 1)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def up(y: float) -> float:
        return HEIGHT - BOTTOM - (y - levels[0]) / (levels[-1] - levels[0] or 1) * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" {FONT}>',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        _text(WIDTH / 2, 20, title, "middle", 'font-weight="bold"'),
        _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 12, x_name, "middle"),
        _text(14, HEIGHT / 2, y_name, "middle", f'transform="rotate(-90 14 {HEIGHT / 2:g})"'),
    ]
    if band:
        middle = curves[0].points[0][1]
        size = f'width="{WIDTH - LEFT - RIGHT}" height="{up(middle - band) - up(middle + band):.1f}"'
        parts.append(f'<rect x="{LEFT}" y="{up(middle + band):.1f}" {size} fill="#eeeeee"/>')
    for level in levels:
        parts.append(_line(LEFT, up(level), WIDTH - RIGHT, up(level), "#dddddd"))
        parts.append(_text(LEFT - 6, up(level) + 4, f"{level:g}", "end"))
    parts += [_text(across(x), HEIGHT - BOTTOM + 18, f"{x:g}", "middle") for x in places]
    for number, curve in enumerate(curves):
        colour = COLOURS[number % len(COLOURS)]
        path = " ".join(f"{across(x):.1f},{up(mean):.1f}" for x, mean, _ in curve.points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for x, mean, spread in curve.points:
            parts.append(f'<circle cx="{across(x):.1f}" cy="{up(mean):.1f}" r="3" fill="{colour}"/>')
            if spread:
                parts.append(_line(across(x), up(mean - spread), across(x), up(mean + spread), colour))
        parts.append(_text(WIDTH - RIGHT - 4, TOP + 14 + 16 * number, curve.name, "end", f'fill="{colour}"'))
    return "\n".join([*parts, "</svg>", ""])


def _text(x: float, y: float, text: str, anchor: str, more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {more}>{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, colour: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"/>'
