"""Entry point of `python -m service`.

SIGTERM is handled before the imports, because process 1 of a container ignores it otherwise.
"""

import signal
import sys

signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))

try:
    from service.cli import main

    status = main()
except KeyboardInterrupt:
    status = 128 + signal.SIGINT
raise SystemExit(status)
