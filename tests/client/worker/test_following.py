"""New lines of a log are shown to whoever looks, whole and in their order, and nothing of before."""

import time

from esn_client.worker.following import followed


def test_new_lines_are_told_as_they_come_and_the_last_ones_before_it_ends(tmp_path):
    path, seen = tmp_path / "answers.log", []
    path.write_text("of before\n")
    with followed(path, tell=seen.append):
        with path.open("a") as file:
            file.write("one\n\ntw")
        deadline = time.monotonic() + 60
        while not seen and time.monotonic() < deadline:
            time.sleep(0.05)
        with path.open("a") as file:
            file.write("o\nthree\n")
    assert seen == ["one", "two", "three"]


def test_a_log_that_is_begun_anew_or_comes_later_is_followed(tmp_path):
    seen = []
    with followed(tmp_path / "later.log", tell=seen.append):
        (tmp_path / "later.log").write_text("first\n")
    assert seen == ["first"]
    with followed(tmp_path / "later.log", tell=seen.append):
        (tmp_path / "later.log").write_text("new\n")
    assert seen == ["first", "new"]
