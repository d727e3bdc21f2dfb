"""The command line: ``train``, ``evaluate``, ``play``, ``export``, ``plot`` and ``bench``.

Nothing heavy is imported until what was typed has been checked. Exit codes: 0 finished, 2 usage, 3 checkpoint,
4 simulation, 5 divergence, 6 worker, 75 saved and to be run again, 130 interrupted and saved.
"""

import io
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module

from dima_isaac import __version__
from dima_isaac.cli.explain import explain
from dima_isaac.errors import DimaError, UsageError, unknown


def main(argv: Sequence[str] | None = None) -> int:
    """``dima COMMAND [key=value ...]``; scripts put the command before the words typed."""
    return guarded(_dispatch, argv)


def _dispatch(words: list[str]) -> int:
    from dima_isaac.cli.args import OPTIONS, parse
    from dima_isaac.run.catalog import Catalog
    from dima_isaac.run.signals import ExitAtOnce, interrupting

    command = words[0] if words else "--help"
    if command in ("-h", "--help"):
        print(f"usage: dima {{{','.join(OPTIONS)}}} [key=value ...]; dima COMMAND --help lists the keys")
        return 0 if words else UsageError.exit_code
    if "--version" in words:
        print(f"dima-isaac {__version__}")
        return 0
    if command not in OPTIONS:
        raise unknown("command", command, OPTIONS)
    with ExitAtOnce() if command == "train" else interrupting():
        args = parse(command, words[1:])
        if args.help:
            from dima_isaac.cli.help import usage

            print(usage(command, Catalog(args.config_dir)))
            return 0
        if command == "train":
            from dima_isaac.cli.train import train

            return train(args)
        announce(getattr(args.options, "checkpoint", ""))
        from dima_isaac.cli.compose import compose

        tool = import_module("dima_isaac.bench.main" if command == "bench" else f"dima_isaac.tools.{command}")
        return int(tool.main(args.options, args.changes, partial(compose, args), Catalog(args.config_dir)))


def announce(checkpoint: str) -> None:
    """Refuse a ``checkpoint`` that is not there, and say that the program starts: torch takes seconds to import."""
    from dima_isaac.run.folder import RESUME, find

    if checkpoint not in ("", *RESUME):
        find(checkpoint)
    if "torch" not in sys.modules:
        print("starting ...", flush=True)


def guarded(command: Callable[[list[str]], int], argv: Sequence[str] | None = None) -> int:
    """Run ``command`` on the command line's words and return its exit code.

    An error that the user can correct is printed as one sentence, without a traceback.
    """
    # torch's idle threads would spin on the cores where the physics threads run; read when torch is imported
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for stream in (sys.stdout, sys.stderr):  # ASCII terminals, and paths that are not UTF-8
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")
    try:
        return command(list(sys.argv[1:] if argv is None else argv))
    except DimaError as error:
        _print_error(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 141
    except Exception as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if sentence := explain(error):
            _print_error(sentence)
        elif missing and missing.partition(".")[0] != "dima_isaac":
            print(f"missing: {missing} -> pip install -e .", file=sys.stderr)
        else:
            raise
        return UsageError.exit_code
    finally:
        try:
            sys.stdout.flush()
        except OSError:  # the reader has closed the pipe; Python would report that once more at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _print_error(text: str) -> None:
    """One sentence on standard error, whose first word is red on a terminal."""
    from termcolor import colored

    print(colored("error:", "red", no_color=not sys.stderr.isatty()), text, file=sys.stderr)
