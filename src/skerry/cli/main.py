# SPDX-License-Identifier: Apache-2.0
"""Entry point of `skerry`. Help and version are answered from a table, before click is even imported."""

from __future__ import annotations

import os
import sys

from skerry.cli.verbs import help_text

_HELP: tuple[list[str], ...] = ([], ["-h"], ["--help"], ["help"])
_COMPLETION = "_SKERRY_COMPLETE"  # set by the shell when it asks click what could come next
_BROKEN_PIPE = 141  # exit_codes.ExitCode.BROKEN_PIPE, without loading the errors for it


def main() -> None:
    """Run the command line of this process and exit with a code of `exit_codes.ExitCode`."""
    try:
        code = _run(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:
        # The interpreter flushes stdout once more at exit and would complain: give it a sink.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = _BROKEN_PIPE
    if code:
        sys.exit(code)


def _run(given: list[str]) -> int:
    arguments, debug = split_debug(given)
    if arguments in _HELP and _COMPLETION not in os.environ:
        sys.stdout.write(help_text())
        return 0
    from skerry.cli.program import run

    return run(arguments, debug=debug or bool(os.environ.get("SKERRY_DEBUG")))


def split_debug(arguments: list[str]) -> tuple[list[str], bool]:
    """`--debug` may stand anywhere before `--`: whoever needs it appends it to the line that just failed."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    head = [argument for argument in arguments[:end] if argument != "--debug"]
    return [*head, *arguments[end:]], len(head) != end


if __name__ == "__main__":
    main()
