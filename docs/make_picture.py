"""Draw docs/images/study.svg, the picture of a study in the README.

Usage: python docs/make_picture.py [--check]

With --check nothing is written, and the exit status is 1 where the picture is not what this script draws.
The phases are those of the source, so that one with another name is noticed.
"""

import sys
from html import escape
from pathlib import Path

from esn_core.protocol.phases import PHASES

PICTURE = Path(__file__).parent / "images" / "study.svg"
COMMAND = "python docs/make_picture.py"
WIDTH, HEIGHT = 980, 590

STYLE = (
    'text { font-family: "DejaVu Sans", Verdana, sans-serif } '
    ".arrow { fill: none; stroke: #52606d; stroke-width: 1.4; marker-end: url(#tip) }"
)
INK, QUIET, LINE, PALE, BLUE, WARM = "#1f2933", "#52606d", "#9aa5b1", "#f4f6f8", "#0072b2", "#d55e00"
HOSPITALS = ("north", "south", "west")
# What is asked of every study, one line each; the names are those of the phases.
STEPS = (
    ("roll-call", "who is there"),
    ("association", "the severity network"),
    ("gradient", "training, in rounds"),
    ("calibration", "from scores to GASE"),
    ("evaluation", "children held out"),
)
ALT = (
    "Three hospitals. In each, scans become connectomes, and connectomes one row of numbers per child; these "
    "never leave. A gate limits each row, adds the rows up, adds noise, charges a ledger and hides the sum "
    "under a mask. The centre adds the hospitals' sums; the masks cancel, and it reads the sum over all "
    "hospitals only. Five steps: roll call, association, gradient, calibration, evaluation. Then a report, a "
    "released model, and the prediction of a new child at any hospital, offline."
)


def main(check: bool) -> int:
    """Write the picture, or compare it."""
    drawn = picture()
    if check:
        if PICTURE.exists() and PICTURE.read_text(encoding="utf-8") == drawn:
            return 0
        sys.stderr.write(f"{PICTURE} is not what is drawn now: {COMMAND}\n")
        return 1
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_text(drawn, encoding="utf-8")
    return 0


def picture() -> str:
    """Return the picture, SVG."""
    missing = [name for name, _ in STEPS if name not in PHASES]
    if missing:
        raise SystemExit(f"no phase is called {', '.join(missing)}; see esn_core/protocol/phases.py")
    parts = [*_hospitals(), *_centre(), *_afterwards()]
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        f"<title>A study, from scans to the prediction of a new child</title><desc>{escape(ALT)}</desc>",
        f"<style>{STYLE}</style>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7"',
        'markerHeight="7" orient="auto">',
        f'<path d="M0 0 L8 4 L0 8 z" fill="{QUIET}"/></marker></defs>',
        f'<rect width="{WIDTH}" height="{HEIGHT}" rx="8" fill="#ffffff"/>',
    ]
    return "\n".join([*head, *parts, "</svg>\n"])


def _hospitals() -> list[str]:
    said = []
    for place, name in enumerate(HOSPITALS):
        top = 20 + 116 * place
        said += [
            _box(16, top, 596, 104, fill=PALE, stroke=LINE),
            _text(28, top + 19, f"hospital {name}", bold=True),
            _box(28, top + 32, 110, 58, stroke=LINE),
            *_lines(83, top + 56, ("scans, scores", "and controls")),
            _arrow(138, top + 61, 166, top + 61),
            _box(168, top + 32, 104, 58, stroke=LINE),
            *_lines(220, top + 66, ("connectomes",)),
            _arrow(272, top + 61, 300, top + 61),
            _box(302, top + 32, 96, 58, stroke=LINE),
            *_lines(350, top + 56, ("one row", "per child")),
            _arrow(398, top + 61, 426, top + 61),
            _box(428, top + 14, 172, 82, stroke=WARM, width=2),
            _text(440, top + 31, "the gate", bold=True, fill=WARM),
            _text(440, top + 48, "limits each row, adds up,", size=11.5),
            _text(440, top + 63, "adds noise, charges the", size=11.5),
            _text(440, top + 78, "ledger, masks the sum", size=11.5),
            _arrow(612, top + 56, 690, top + 56 if place == 1 else 178 + 22 * (place - 1)),
        ]
    return [
        *said,
        _text(28, 384, "never leaves: scans, connectomes, scores, rows", fill=QUIET),
        _text(428, 384, "leaves: masked sums", fill=WARM),
    ]


def _centre() -> list[str]:
    said = [
        _box(694, 20, 270, 336, fill=PALE, stroke=BLUE, width=2),
        _text(708, 42, "the coordinating centre", bold=True, fill=BLUE),
        _text(708, 62, "asks signed questions; each answer is", size=11.5),
        _text(708, 77, "added up. The masks cancel: it reads the", size=11.5),
        _text(708, 92, "sum over all hospitals, with its noise,", size=11.5),
        _text(708, 107, "and no hospital's own.", size=11.5),
    ]
    for place, (name, words) in enumerate(STEPS):
        top = 124 + 45 * place
        said += [
            _box(708, top, 242, 34, stroke=LINE),
            _text(718, top + 22, name, bold=True, size=12),
            _text(940, top + 22, words, size=11.5, fill=QUIET, anchor="end"),
        ]
        if place:
            said.append(_arrow(829, top - 11, 829, top - 1))
    return said


def _afterwards() -> list[str]:
    top = 420
    boxes = (
        (
            16,
            214,
            "a report",
            ("r with its interval, beside", "chance, and what it cost", "each child in privacy"),
            INK,
        ),
        (
            262,
            214,
            "a released model",
            ("one signed file, once each", "hospital has audited the study", "and countersigned"),
            INK,
        ),
        (
            508,
            214,
            "a child never seen before",
            (
                "at any hospital with three own",
                "controls, offline: GASE with",
                "its interval, what drives it",
            ),
            BLUE,
        ),
        (754, 210, "for research only", ("not a medical device, and", "no decision about a patient"), WARM),
    )
    said = ['<path class="arrow" d="M829 356 V398 H123 V416"/>']
    for left, width, head, lines, colour in boxes:
        said += [
            _box(left, top, width, 108, stroke=colour, width=1.6),
            _text(left + 12, top + 24, head, bold=True, fill=colour),
        ]
        said += [_text(left + 12, top + 48 + 18 * i, line, size=12) for i, line in enumerate(lines)]
    said += [_arrow(left, top + 54, left + 30, top + 54) for left in (230, 476)]
    said.append(
        _text(
            16,
            566,
            "The study itself is a signed protocol: hospitals approve it, and run only what they installed.",
            fill=QUIET,
        )
    )
    return said


def _box(
    x: float, y: float, w: float, h: float, *, stroke: str, fill: str = "#ffffff", width: float = 1.2
) -> str:
    place = f'x="{x}" y="{y}" width="{w}" height="{h}" rx="5"'
    return f'<rect {place} fill="{fill}" stroke="{stroke}" stroke-width="{width}"/>'


def _text(
    x: float,
    y: float,
    words: str,
    *,
    bold: bool = False,
    fill: str = INK,
    size: float = 13,
    anchor: str = "start",
) -> str:
    weight = ' font-weight="bold"' if bold else ""
    how = f'font-size="{size}" fill="{fill}" text-anchor="{anchor}"{weight}'
    return f'<text x="{x}" y="{y}" {how}>{escape(words)}</text>'


def _lines(x: float, y: float, words: tuple[str, ...]) -> list[str]:
    return [_text(x, y + 17 * place, line, size=12, anchor="middle") for place, line in enumerate(words)]


def _arrow(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="arrow" x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"/>'


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
