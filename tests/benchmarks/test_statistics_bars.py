"""The tables of intervals and tests on the page are what their command makes, and hold what they promise."""

import math
import subprocess
import sys
from pathlib import Path

import pytest

DRAWS = 400
SCRIPT = Path(__file__).with_name("statistics_bars.py")
PAGE = Path(__file__).parents[2] / "docs" / "benchmarks.md"
pytestmark = [pytest.mark.long, pytest.mark.science, pytest.mark.timeout(1800)]


def figures(text):
    """Every figure of tables in Markdown, by its table, line and column."""
    found, head = {}, []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("| ").split(" | ")]
        if not line.startswith("| "):
            head = [] if not line.startswith("|---") else head
        elif not head:
            head = cells
        else:
            found |= {
                (head[0], cells[0], column): float(x) for column, x in zip(head[1:], cells[1:], strict=True)
            }
    return found


@pytest.fixture(scope="module")
def made():
    command = [sys.executable, str(SCRIPT), "--draws", str(DRAWS)]
    return figures(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def test_the_page_says_what_its_command_makes(made):
    written = PAGE.read_text(encoding="utf-8").split("<!-- statistics_bars.py writes from here -->")[1]
    said = figures(written.split("<!-- to here -->")[0])
    assert said.keys() == made.keys()
    # Another processor may round one draw of a hundred to the other side.
    assert said == pytest.approx(made, abs=0.011)


def test_intervals_hold_the_truth_as_often_as_they_say(made):
    for (table, figure, setting), share in made.items():
        if "intervals" in table and "are shown" in table:
            # .93, less three standard errors (Monte Carlo) of as many draws as are shown.
            shown = made["coefficients that the noise leaves to show", figure, setting]
            assert shown > 0.6, (figure, setting)
            least = 0.93 - 3 * math.sqrt(0.07 * 0.93 / (shown * DRAWS))
            assert share >= least, (table, figure, setting)
        elif "intervals" in table:
            # Those of MAE are of first order: absolute errors of few children are skewed.
            least = 0.95 - 3 * math.sqrt(0.05 * 0.95 / DRAWS)
            assert share >= (0.90 if "MAE" in figure else least), (table, figure, setting)


def test_no_test_is_sure_of_nothing_more_often_than_it_says(made):
    for (table, figure, setting), share in made.items():
        if "sure" in table:
            draws = DRAWS // 4 if "noise" in table else DRAWS
            if "are shown" in table:
                shown = made["coefficients without effect that the noise leaves to show", figure, setting]
                assert shown > 0.6, (figure, setting)
                draws *= shown
            # The likelihood ratio's chi-squared is of many children; at 36 it is sure a little too often.
            nominal = 0.08 if figure == "likelihood ratio" and setting.startswith("36") else 0.05
            assert share <= nominal + 3 * math.sqrt(nominal * (1 - nominal) / draws), (table, figure, setting)
