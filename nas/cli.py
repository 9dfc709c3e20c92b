"""The command line.

Exit codes: 0, 1 (could not be done), 2 (wrong usage; nothing was written), 130 (interrupted; resumable).
With `--json`, one JSON object goes to standard output and everything else to standard error.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
from types import FrameType
from typing import Any

import typer

from nas.commands.devices import devices, measure, profile
from nas.commands.inputs import data, spaces
from nas.commands.options import say
from nas.commands.quantize import quantize
from nas.commands.results import export, report, verify
from nas.commands.search import retarget, search
from nas.commands.train import fidelity, train
from nas.errors import CannotBeDone

app = typer.Typer(
    help="Hardware-aware neural architecture search: every point on the front is a file that was measured.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (
    search,
    train,
    fidelity,
    spaces,
    devices,
    data,
    report,
    verify,
    export,
    retarget,
    measure,
    profile,
    quantize,
):
    app.command()(command)


def main() -> None:
    """Runs the command line and exits with its code."""
    # Threads that wait actively for a neighbour's time slice make small networks a hundred times slower on a
    # busy machine.  Read by OpenMP when torch loads it.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    mind_interrupts()
    sys.exit(_run(sys.argv[1:]))


def mind_interrupts() -> None:
    """Makes Ctrl-C end the command wherever it falls."""
    signal.signal(signal.SIGINT, _interrupt)
    sys.unraisablehook = _unraisable


def _unraisable(what: sys.UnraisableHookArgs) -> None:
    """An interrupt that falls into a finalizer, where Python drops it, comes again; all else is as ever."""
    if what.exc_type is KeyboardInterrupt:
        signal.signal(signal.SIGINT, _interrupt)
        main_thread = threading.main_thread().ident
        threading.Timer(0.1, signal.pthread_kill, (main_thread, signal.SIGINT)).start()
    else:
        sys.__unraisablehook__(what)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """The first Ctrl-C ends the command in order, a second one at once; a run can be resumed after either."""
    signal.signal(number, lambda *_: os._exit(130))
    raise KeyboardInterrupt


# Typer's usage errors and their base: newer versions of it carry a click of their own, which has no public name.
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]


def _run(arguments: list[str]) -> int:
    """The exit code of one command."""
    try:
        code = app(arguments or ["--help"], standalone_mode=False, prog_name="nas")
    except _UsageError as error:
        say(_usage_message(error))
        return 2
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except ValueError as error:
        say(" ".join(str(error).split()))
        return 2
    except CannotBeDone as error:
        say(" ".join(str(error).split()))
        return 1
    except OSError as error:
        full = error.errno == errno.ENOSPC
        say(f"the disk is full ({error.filename or error}): make room and repeat the command" if full else str(error))
        return 2 if full else 1
    return code if isinstance(code, int) else 0  # what typer makes of an interrupt: 130


def _usage_message(error: Any) -> str:
    """One line, with the nearest option where there is one."""
    message = " ".join(error.format_message().split())
    near = getattr(error, "possibilities", None)
    return f"{message} (did you mean {near[0]}?)" if near and near[0] not in message else message
