"""A flame graph as SVG: wide is expensive, above is who was called. Light and dark alike, a title on every box."""

from __future__ import annotations

import html
import zlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

_WIDTH, _ROW, _MARGIN, _TITLE = 1200, 17, 10, 34
_MIN_WIDTH = 0.6  # of a box, in pixels; narrower ones are left out
_CHARACTER = 6.1  # of the font, in pixels


@dataclass(slots=True)
class _Node:
    name: str
    value: float = 0.0
    children: dict[str, _Node] = field(default_factory=dict)

    def depth(self) -> int:
        return 1 + max((child.depth() for child in self.children.values()), default=0)


def write(path: Path, folded: Counter[tuple[str, ...]], order: list[str], title: str, unit: str, scale: float) -> None:
    """`folded`: counts by path, outermost first; `order`: the outermost, left to right; counts x scale are `unit`."""
    root = _Node("all")
    for names, count in folded.items():
        node = root
        node.value += count * scale
        for name in names:
            node = node.children.setdefault(name, _Node(name))
            node.value += count * scale
    height = _TITLE + root.depth() * _ROW + _MARGIN
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" font-family="monospace" '
        'font-size="10">',
        f'<rect width="{_WIDTH}" height="{height}" fill="#fdfdfb" rx="6"/>',
        f'<text x="{_MARGIN}" y="21" font-size="14" fill="#222">{html.escape(title)}</text>',
    ]
    ranks = {name: rank for rank, name in enumerate(order)}
    _draw(lines, root, _MARGIN, height - _MARGIN - _ROW, (_WIDTH - 2 * _MARGIN) / root.value, root.value, unit, ranks)
    path.write_text("\n".join([*lines, "</svg>"]) + "\n")


def _draw(
    lines: list[str], node: _Node, x: float, y: float, per_unit: float, total: float, unit: str, ranks: dict[str, int]
) -> None:
    width = node.value * per_unit
    if width < _MIN_WIDTH:
        return
    words = f"{node.name}: {node.value:,.0f} {unit}, {node.value / total:.1%}"
    room = int((width - 4) / _CHARACTER)
    text = node.name if len(node.name) <= room else node.name[: room - 1] + "…" if room > 3 else ""
    lines.append(
        f'<g><title>{html.escape(words)}</title><rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{_ROW - 1}" '
        f'fill="{_colour(node.name)}" rx="1.5"/>'
        + (f'<text x="{x + 3:.1f}" y="{y + 12}" fill="#1b1b1b">{html.escape(text)}</text>' if text else "")
        + "</g>"
    )
    last = len(ranks)
    for child in sorted(node.children.values(), key=lambda child: (ranks.get(child.name, last), -child.value)):
        _draw(lines, child, x, y - _ROW, per_unit, total, unit, {})
        x += child.value * per_unit


def _colour(name: str) -> str:
    """Warm, and always the same for a name."""
    drawn = zlib.crc32(name.encode())
    return f"hsl({15 + drawn % 40},{70 + drawn // 64 % 20}%,{66 + drawn // 4096 % 14}%)"
