"""Entry point of `python -m service`, and of the script `autoencoder-service`."""

import signal
import sys
from types import FrameType

INTERRUPTED_STATUS = 128 + signal.SIGINT  # as shells show it
TERMINATED_STATUS = 128 + signal.SIGTERM


def main() -> int:
    """Run a command. Returns its exit status, which is 130 after SIGINT, and 143 after SIGTERM.

    SIGTERM ends `serve` with 0, because it is the usual end of a server.
    """
    terminations: list[int] = []

    def terminate(number: int, frame: FrameType | None) -> None:
        terminations.append(number)
        _interrupt(frame)

    serves = sys.argv[1:2] == ["serve"]
    # Before the imports, because process 1 of a container ignores SIGTERM otherwise.
    signal.signal(signal.SIGTERM, _exit if serves else terminate)
    try:
        from service import cli

        status = cli.main()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        status = INTERRUPTED_STATUS
    return TERMINATED_STATUS if terminations and status == INTERRUPTED_STATUS else status


def _interrupt(frame: FrameType | None) -> None:
    """Do as SIGINT, whose handler may be that of asyncio, which first cancels tasks."""
    handler = signal.getsignal(signal.SIGINT)
    if not callable(handler):  # the shell ignores SIGINT for a command in the background
        raise KeyboardInterrupt
    handler(signal.SIGINT, frame)


def _exit(*_: object) -> None:
    sys.exit(0)


if __name__ == "__main__":
    raise SystemExit(main())
