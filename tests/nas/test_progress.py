import io

import pytest
from rich.console import Console

from nas.progress import LiveReporter, SilentReporter


def reporter(terminal=False):
    out = io.StringIO()
    return LiveReporter(Console(file=out, force_terminal=terminal, width=120)), out


def test_without_a_terminal_each_stage_is_one_line():
    live, out = reporter()
    with live:
        with live.stage("train", 10) as stage:
            stage.advance(4)
            stage.say("loss 0.3")
        with live.stage("verify") as stage:
            stage.expect(2)
        live.message("done")
    first, second, last = out.getvalue().splitlines()
    assert first.startswith("train: ") and first.endswith(" s loss 0.3")
    assert second.startswith("verify: ") and second.endswith(" s")
    assert last == "done"


@pytest.mark.parametrize("terminal", [True, False])
def test_findings_in_brackets_are_shown_as_they_are(terminal):
    live, out = reporter(terminal)
    with live, live.stage("search", 2) as stage:
        stage.say("[bold] kernel [/3]")
    assert "[bold] kernel [/3]" in out.getvalue()


def test_a_terminal_shows_bars_with_their_counts():
    live, out = reporter(terminal=True)
    with live:
        with live.stage("search", 8) as stage:
            stage.advance(3)
            live._progress.refresh()
            assert "3/8" in out.getvalue()
        live._progress.refresh()
        assert "8/8" in out.getvalue()


def test_a_stage_that_fails_is_not_shown_as_done():
    live, out = reporter()
    with pytest.raises(ValueError, match="broken"), live, live.stage("train", 10) as stage:
        stage.advance(4)
        raise ValueError("broken")
    assert out.getvalue() == ""
    assert live._progress.tasks[0].completed == 4


def test_the_silent_reporter_says_nothing(capsys):
    silent = SilentReporter()
    with silent.stage("train", 10) as stage:
        stage.advance()
        stage.expect(5)
        stage.say("x")
    silent.message("done")
    assert capsys.readouterr() == ("", "")
