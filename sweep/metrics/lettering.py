"""Names of classes and files as the fonts of this machine can draw them in a figure."""

from __future__ import annotations

from functools import cache

import matplotlib as mpl
from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font

# Fonts with letters that matplotlib's own lacks: used where they are installed. A family that is not is no fallback
# but a warning for every figure.
_WIDE = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans SC", "WenQuanYi Zen Hei"),
    *("WenQuanYi Micro Hei", "Droid Sans Fallback", "PingFang SC", "Hiragino Sans GB", "Microsoft YaHei", "SimHei"),
    *("Noto Sans Devanagari", "Noto Sans Bengali", "Noto Sans Tamil", "Noto Sans Thai", "Noto Sans Hebrew"),
    "Arial Unicode MS",
)


@cache
def families() -> list[str]:
    """Font families for `font.family`: matplotlib's own first, so that Latin letters look the same everywhere."""
    installed = set(fontManager.get_font_names())
    own = [name for name in mpl.rcParamsDefault["font.family"] if name not in _WIDE]
    return [*own, *(name for name in _WIDE if name in installed)]


def drawable(text: str) -> str:
    r"""A name as a figure can show it: `\u80ba` for a letter that no font here has, and no formula between two `$`."""
    letters = _letters()
    shown = (letter if ord(letter) in letters and letter.isprintable() else ascii(letter)[1:-1] for letter in text)
    return "".join(shown).replace("$", r"\$")


@cache
def _letters() -> frozenset[int]:
    fonts = (get_font(findfont(FontProperties(family=[family]))) for family in families())
    return frozenset(code for font in fonts for code, glyph in font.get_charmap().items() if glyph)
