"""A matplotlib figure as inline SVG that belongs to its page: the page's fonts and colours, no ids of its own.

Figures are drawn with the colour names of `Ink`. They are codes, not colours: each stands for a CSS variable of the
page, so that one drawing follows the light theme, the dark theme and the printer.
"""

from __future__ import annotations

import io
import re
import warnings
from xml.etree import ElementTree

import matplotlib as mpl
from matplotlib.figure import Figure

_RC = {
    "svg.fonttype": "none",
    "svg.hashsalt": "sparring",
    "text.parse_math": False,
    "axes.unicode_minus": True,
    "font.family": "DejaVu Sans",
    "path.simplify": True,
}
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufeff\ufffe\uffff]")
_HREF = re.compile(r"url\(#([^)]+)\)")


class Ink:
    """Colour codes: `#0000nn` in the drawing, `var(--name)` in the page."""

    TEXT = "#000001"
    MUTED = "#000002"
    RULE = "#000003"
    PAPER = "#000004"
    CANDIDATE = "#000005"
    CHAMPION = "#000006"
    REFERENCE = "#000007"
    HARM = "#000008"
    HELP = "#000009"
    SHADE = "#00000a"
    GOOD = "#00000b"
    BAD = "#00000c"
    WAIT = "#00000d"


_VARIABLES = {
    code: f"var(--{name.lower()})" for name, code in vars(Ink).items() if isinstance(code, str) and code.startswith("#")
}


def plain(text: str, limit: int = 40) -> str:
    """A label that cannot break a drawing: no control or direction characters, one line, at most `limit` characters."""
    flat = " ".join(_CONTROL.sub(" ", text).split())
    return flat if len(flat) <= limit else flat[: limit - 1] + "…"


def inline(figure: Figure, *, prefix: str, label: str) -> str:
    """The figure as an `<svg>` element for an HTML page; ids start with `prefix`, `label` is read to the blind."""
    root = ElementTree.fromstring(_drawn(figure))
    for element in list(root.iter()):
        _localise(element)
    _drop(root, {"metadata", "style"})
    _rename_ids(root, prefix)
    box = root.get("viewBox", "0 0 1 1")
    root.attrib.clear()
    root.attrib.update({"viewBox": box, "role": "img", "aria-label": plain(label, 400)})
    return ElementTree.tostring(root, encoding="unicode")


def _drawn(figure: Figure) -> bytes:
    """The SVG that matplotlib writes: without date and creator, with ids that depend on the drawing alone."""
    buffer = io.BytesIO()
    with mpl.rc_context(_RC), warnings.catch_warnings():  # type: ignore[arg-type]
        warnings.filterwarnings("ignore", message="Glyph")  # the browser has fonts that this process lacks
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def _localise(element: ElementTree.Element) -> None:
    """Names without namespaces (an HTML parser knows SVG), styles in the page's colours and fonts."""
    element.tag = element.tag.rpartition("}")[2]
    for name in list(element.attrib):
        value = element.attrib.pop(name)
        element.attrib[name.rpartition("}")[2]] = _themed(value) if name == "style" else value
    if element.tag == "text" and "rotate(-0 " in element.get("transform", ""):
        del element.attrib["transform"]
    if element.get("style") == "":
        del element.attrib["style"]


def _themed(style: str) -> str:
    kept = [part.strip() for part in style.split(";") if part.strip() and not part.strip().startswith("font-family")]
    return "; ".join(re.sub(r"#[0-9a-f]{6}", lambda code: _VARIABLES.get(code[0], code[0]), part) for part in kept)


def _drop(root: ElementTree.Element, tags: set[str]) -> None:
    for parent in list(root.iter()):
        for child in [child for child in parent if child.tag in tags]:
            parent.remove(child)


def _rename_ids(root: ElementTree.Element, prefix: str) -> None:
    """Keeps only ids that something refers to: several drawings share one page."""
    used = {element.get("href", "")[1:] for element in root.iter()}
    used |= {name for element in root.iter() for value in element.attrib.values() for name in _HREF.findall(value)}
    for element in root.iter():
        if element.get("id") in used:
            element.set("id", f"{prefix}-{element.get('id')}")
        else:
            element.attrib.pop("id", None)
        if element.get("href"):
            element.set("href", f"#{prefix}-{element.get('href', '')[1:]}")
        for name, value in element.attrib.items():
            element.attrib[name] = _HREF.sub(rf"url(#{prefix}-\1)", value)
