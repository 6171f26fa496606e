"""Charts of the page, as SVG."""

import html
import math
from collections.abc import Sequence

_WIDTH, _HEIGHT = 330, 190  # of a chart, in its own units: about one pixel each on a phone
_LEFT, _RIGHT, _TOP, _BOTTOM = 42, 8, 8, 34


def plain(value: object) -> str:
    return html.escape(str(value), quote=True)


def ticks(low: float, high: float, log: bool) -> list[float]:
    if log:
        first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
        step = max(1, math.ceil((last - first) / 4))
        factors = (1, 2, 5) if last - first <= 2 else (1,)
        ticks = [factor * 10.0**power for power in range(first, last + 1, step) for factor in factors]
        return [tick for tick in ticks if low <= tick <= high]
    step = 10 ** math.floor(math.log10((high - low) / 2))
    step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= 5)
    first = math.ceil(low / step - 1e-9)
    return [round(float(place * step), 10) for place in range(first, int(high / step + 1e-9) + 1)]


class Chart:
    """One SVG: axes with ticks, and what is drawn between them."""

    def __init__(self, title: str, words: str, x: tuple[float, float], y: tuple[float, float], *, log: bool = False):
        self.title, self.words, self.x, self.y, self.log = title, words, x, y, log
        self.parts: list[str] = []

    def across(self, value: float) -> float:
        low, high = self.x
        if self.log:
            value, low, high = math.log(max(value, low)), math.log(low), math.log(high)
        return _LEFT + (value - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT)

    def up(self, value: float) -> float:
        low, high = self.y
        return _HEIGHT - _BOTTOM - (value - low) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    def bar(self, left: float, right: float, top: float, *, risk: bool) -> None:
        if top > 0:
            x, y = self.across(left), self.up(top)
            width = max(self.across(right) - x - 1, 1)
            kind = "bar risk" if risk else "bar"
            self.parts.append(
                f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{self.up(0.0) - y:.1f}"/>'
            )

    def curve(self, xs: Sequence[float], ys: Sequence[float]) -> None:
        path = " ".join(f"{self.across(x):.1f},{self.up(y):.1f}" for x, y in zip(xs, ys, strict=True))
        self.parts.append(f'<polyline class="curve" points="{path}"/>')

    def mark(self, value: float, label: str, *, low: bool = False) -> None:
        if self.x[0] <= value <= self.x[1]:
            x = self.across(value)
            side = "end" if x > _WIDTH / 2 else "start"
            shift = -4 if side == "end" else 4
            self.parts.append(
                f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{self.up(self.y[0]):.1f}"/>'
            )
            y = _HEIGHT - _BOTTOM - 6 if low else _TOP + 10
            self.parts.append(f'<text x="{x + shift:.1f}" y="{y}" text-anchor="{side}">{plain(label)}</text>')

    def svg(self, x_label: str, *, fractions: bool = False) -> str:
        base = self.up(self.y[0])
        axes = [f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{base:.1f}" y2="{base:.1f}"/>']
        for tick in ticks(*self.x, self.log):
            x = self.across(tick)
            axes.append(f'<text x="{x:.1f}" y="{base + 14:.1f}" text-anchor="middle">{tick:g}</text>')
        for tick in ticks(*self.y, False):
            label = f"{100 * tick:g} %" if fractions else f"{tick:g}"
            axes.append(f'<text x="{_LEFT - 4}" y="{self.up(tick) + 4:.1f}" text-anchor="end">{label}</text>')
        middle = (_LEFT + _WIDTH - _RIGHT) / 2
        axes.append(f'<text x="{middle}" y="{_HEIGHT - 4}" text-anchor="middle">{plain(x_label)}</text>')
        label = plain(f"{self.title}. {self.words}")
        return (
            f'<figure><figcaption>{plain(self.title)}</figcaption><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
            f'aria-label="{label}"><title>{plain(self.title)}</title><desc>{plain(self.words)}</desc>'
            f"{''.join(axes + self.parts)}</svg></figure>"
        )
