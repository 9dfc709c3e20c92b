"""The command line in this process: what `nas` does and prints, without the seconds that torch takes to load."""

import io
import signal
import sys
from contextlib import redirect_stderr, redirect_stdout
from typing import NamedTuple

import pytest

from nas.cli import main


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


def nas(*arguments, cwd, cache):
    out, err, handler = io.StringIO(), io.StringIO(), signal.getsignal(signal.SIGINT)
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setenv("HWNAS_CACHE", str(cache))
        patch.setenv("COLUMNS", "120")
        patch.chdir(cwd)
        patch.setattr(sys, "argv", ["nas", *map(str, arguments)])
        try:
            main()
        except SystemExit as ended:
            return Done(ended.code, out.getvalue(), err.getvalue())
        finally:
            signal.signal(signal.SIGINT, handler)
    raise AssertionError("the command did not end with an exit code")
