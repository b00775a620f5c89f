import io
import re

import pytest
from rich.console import Console

from tfpipe import console


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is moved: `clock.now += seconds`."""

    class Clock:
        now = 1000.0

        @staticmethod
        def monotonic():
            return Clock.now

    monkeypatch.setattr(console, "time", Clock)
    return Clock


def test_say_writes_one_plain_line_to_standard_error(capsys):
    console.say("[bold]100%[/bold] " + "x" * 300)
    captured = capsys.readouterr()
    assert captured.err == "[bold]100%[/bold] " + "x" * 300 + "\n" and captured.out == ""


def test_what_say_tells_of_commands_no_terminal(capsys):
    console.say("label \x1b]0;title\x07 \x9b2J \r\u202e\n  as   it is\b")
    assert capsys.readouterr().err == "label \ufffd]0;title\ufffd \ufffd2J \ufffd\ufffd\n  as   it is\ufffd\n"


def test_without_a_terminal_a_line_every_fifteen_seconds_with_the_time_left(capsys, clock):
    with console.progress_bar("train", 100) as bar:
        for _ in range(100):
            clock.now += 1.0
            bar.advance(note="loss 0.5")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 100 // 15
    found = [re.fullmatch(r"  train: (\d+)/100, (\d+) s left  loss 0\.5", line) for line in lines]
    assert [(int(each[1]), int(each[2])) for each in found] == [(n, 100 - n) for n in range(15, 100, 15)]


def test_the_time_left_counts_from_where_a_resumed_step_began(capsys, clock):
    with console.progress_bar("train", 100, completed=80) as bar:
        clock.now += 20.0
        bar.advance(10)
    assert capsys.readouterr().err == "  train: 90/100, 20 s left  \n"


def test_a_short_step_prints_nothing(capsys, clock):
    with console.progress_bar("train", 3) as bar:
        for _ in range(3):
            clock.now += 1.0
            bar.advance()
    assert capsys.readouterr() == ("", "")


def test_track_yields_every_item_and_counts_it(capsys, clock):
    def slow():
        for item in "abc":
            clock.now += 16.0
            yield item

    assert list(console.track(slow(), "letters", 3)) == ["a", "b", "c"]
    counts = [line.split(",")[0] for line in capsys.readouterr().err.splitlines()]
    assert counts == ["  letters: 1/3", "  letters: 2/3", "  letters: 3/3"]


def test_a_bar_within_a_bar_on_a_terminal(monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr(console, "console", Console(file=screen, force_terminal=True, width=100))
    with console.progress_bar("train", 2) as outer:
        outer.advance()
        with console.progress_bar("evaluate", 5) as inner:
            inner.advance(5)
            console._shown.refresh()
            console.say("between them")
        outer.advance()
    assert console._shown is None
    shown = screen.getvalue()
    assert "train" in shown and "evaluate" in shown and "5/5" in shown and "between them" in shown
    with pytest.raises(KeyError), console.progress_bar("prune", 2):
        raise KeyError
    assert console._shown is None
