import gc
import sys

from training.cli import main

status = main()
gc.freeze()  # the exporter's garbage, whose collection takes two seconds, ends with the process
sys.exit(status)
