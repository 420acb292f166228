"""`python -m dropasr VERB [options]`: finds the verb, reads its options, calls it, and turns errors into one line and an exit code.

Nothing heavy is imported before a verb needs it, so that a stage that is already done answers at once.
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
from pathlib import Path

from dropasr import options
from dropasr.errors import DropasrError, UsageError
from dropasr.stages import list_text
from dropasr.verbs import VERBS

TRANSCRIBE = "transcribe"
"""The verb that has options of its own, and needs neither a configuration nor torch."""


def help_text() -> str:
    """The answer to `python -m dropasr --help`."""
    lines = ["usage: python -m dropasr VERB [options]; python -m dropasr VERB --help lists its options", "", "verbs:"]
    lines += [f"  {name:<11} {verb.help}" for name, verb in VERBS.items()]
    lines.append(f"  {TRANSCRIBE:<11} FILE…: words of audio files with a package")
    return "\n".join(lines)


def verb_help_text(name: str) -> str:
    """The answer to `python -m dropasr VERB --help`."""
    verb = VERBS[name]
    head = [f"{name}: {verb.help}", "", "options (`--name value` or `--name=value`):"]
    return "\n".join([*head, *map(options.line, (*verb.own, *verb.takes))])


def _refuse_unused(name: str, argv: list[str]) -> None:
    """Raise UsageError where an option is given that other verbs have a use for, but this one has not."""
    taken = {other: {option.name for option in (*verb.takes, *verb.own)} for other, verb in VERBS.items()}
    for given in (word.partition("=")[0] for word in argv if word.startswith("--")):
        users = [other for other in VERBS if given in taken[other]]
        if users and given not in taken[name]:
            owners = "other verbs" if len(users) > 2 else " and ".join(users)
            raise UsageError(f"option '{given}': '{name}' has no use for it, it belongs to {owners}. See python -m dropasr {name} --help.")


def _run(argv: list[str]) -> None:
    known = [*VERBS, TRANSCRIBE]
    if argv[:1] in ([], ["--help"], ["-h"]):
        print(help_text())
        return
    name, *rest = argv
    if name not in known:
        raise UsageError(f"unknown verb '{name}': did you mean '{options.nearest(name, known)}'? See python -m dropasr --help.")
    if name == TRANSCRIBE:
        from dropasr.transcribe import run

        run(rest, Path(os.environ.get(options.CALLER_DIR) or os.getcwd()))
        return
    verb = VERBS[name]
    _refuse_unused(name, rest)
    takes = {0: "no arguments", 1: "one argument", 2: "two arguments"}.get(verb.arguments, "arguments")
    invocation = options.parse(
        rest,
        max_arguments=verb.arguments,
        where=f"'{name}' takes {takes} besides options",
        known=(*verb.takes, *verb.own),
        help_command=f"python -m dropasr {name} --help",
    )
    if invocation.wants_help or invocation.wants_list:
        print(verb_help_text(name) if invocation.wants_help else list_text())
    else:
        verb.function(invocation)


_INSTALL = "`transcribe` alone needs what `pip install dropasr[runtime]` brings; all else requirements.txt, as bash run.sh installs it."


def _disk_full(error: BaseException) -> bool:
    full = (errno.ENOSPC, errno.EDQUOT)
    return (isinstance(error, OSError) and error.errno in full) or "No space left on device" in str(error)


def main(argv: list[str] | None = None) -> int:
    """Run one verb and return the exit code: 0, 1 for a failure, 2 for a wrong command line or configuration, 130 when interrupted."""
    try:
        _run(sys.argv[1:] if argv is None else argv)
    except DropasrError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted: the same command goes on from here", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever read the output has ended; nothing more can be said there, at the end of the process neither.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except ModuleNotFoundError as error:
        if (error.name or "dropasr").partition(".")[0] == "dropasr":
            raise
        print(f"error: the package '{error.name}' is not installed. {_INSTALL}", file=sys.stderr)
        return 1
    except Exception as error:
        named = error.filename if isinstance(error, OSError) else None
        if _disk_full(error):
            where = f" while writing {named}" if named else ""
            print(f"error: the disk is full{where}. Make room and give the same command again; finished stages are kept.", file=sys.stderr)
        elif named:
            print(
                f"error: {os.fsdecode(named)}: it cannot be read or written ({error.strerror}). Check the path, which may come from an"
                " option such as --exp-dir or --data-dir, and the permissions.",
                file=sys.stderr,
            )
        else:
            traceback.print_exc()
        return 1
    return 0
