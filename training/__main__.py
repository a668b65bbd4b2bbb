"""Entry point of `python -m training`."""

import gc
import sys

from training.cli import main

status = main()
gc.freeze()  # collecting the exporter's garbage at exit would take two seconds
sys.exit(status)
