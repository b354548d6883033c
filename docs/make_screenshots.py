"""Take the two pictures of a demo's report that the README shows.

Usage: python docs/make_screenshots.py runs/demo

Needs Chromium. The first picture is the head of the private study's report; the second has its prediction
beside that of the run without noise, and the figures of both. What the README says of them is printed.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageChops

from esn_server.report.result import read_result
from esn_server.report.verdict import likely_r
from esn_server.report.wording import fixed, interval

IMAGES = Path(__file__).parent / "images"
WIDTH, HEIGHT, MARGIN = 1000, 3000, 24

# The page allows no script: what a picture leaves out is hidden by a style.
_HIDDEN = "footer, main > section, main > .notice, body > header { display: none }"
PICTURES = {
    "report.png": (
        "body > header, main > .notice, main > section[aria-labelledby=headline] { display: block }"
        "section > :not(h2, .found, .headline) { display: none }"
    ),
    "report-prediction.png": (
        "main > section[aria-labelledby=prediction], main > section[aria-labelledby=cost] { display: block }"
        "section > h2 { border: 0; padding: 0; margin-top: 0 }"
        "section[aria-labelledby=prediction] > :not(h2, .pair) { display: none }"
        "section[aria-labelledby=cost] > p { display: none }"
    ),
}


def main(demo: Path, images: Path = IMAGES) -> int:
    """Take the pictures of a demo."""
    page = (demo / "report.html").read_text(encoding="utf-8")
    for name, style in PICTURES.items():
        picture = taken(page.replace("</style>", f"{_HIDDEN}{style}</style>", 1))
        picture.save(images / name, optimize=True)
        print(images / name)
    private, exact = (read_result(demo / where / "result.json") for where in ("", "no-noise"))
    for words, study in (("with noise", private), ("without", exact)):
        likely, error = likely_r(study.evaluation), study.evaluation.estimates
        print(
            f"{words}: r {fixed(likely and likely.value, 2)}, "
            f"95 % interval {interval(likely and likely.interval, 2)}; mean absolute error "
            f"{fixed(error.mae.value if error and error.mae else study.evaluation.mae, 2)}; "
            f"epsilon {fixed(study.privacy.epsilon_training_child, 2, 'without bound')}"
        )
    return 0


def taken(page: str) -> Image.Image:
    """Return what a browser shows of a page, light, without the empty rest below."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        raise SystemExit("no chromium here: apt-get install chromium")
    with tempfile.TemporaryDirectory() as scratch:
        path, shot = Path(scratch, "report.html"), Path(scratch, "shot.png")
        path.write_text(page.replace("(prefers-color-scheme: dark)", "not all"), encoding="utf-8")
        command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        command += [f"--user-data-dir={scratch}/profile", f"--window-size={WIDTH},{HEIGHT}"]
        command += ["--hide-scrollbars", f"--screenshot={shot}", path.as_uri()]
        subprocess.run(command, capture_output=True, check=True)
        picture = Image.open(shot).convert("RGB")
    shown = ImageChops.difference(picture, Image.new("RGB", picture.size, "white")).getbbox()
    if shown is None:
        raise SystemExit("the browser showed nothing")
    return picture.crop((0, max(shown[1] - MARGIN, 0), picture.width, min(shown[3] + MARGIN, picture.height)))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    raise SystemExit(main(Path(sys.argv[1])))
