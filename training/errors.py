"""What can go wrong offline, each with a message that says what to do."""


class TrainingError(Exception):
    """Base of all errors that are raised on purpose; the command line prints the message and exits with 1."""


class RecipeError(TrainingError):
    """A recipe that does not exist, or an entry that is unknown or out of range."""


class DataError(TrainingError):
    """A data file that is missing, damaged, or not what the recipe needs."""


class DivergedError(TrainingError):
    """The loss is no longer a number."""


class WeakDetectorError(TrainingError):
    """A detector that finds too few synthetic anomalies to be published."""


class ParityError(TrainingError):
    """Graphs do not answer as what they were made from."""


class CheckpointError(TrainingError):
    """A checkpoint that cannot be read or written."""


class CollapsedError(TrainingError):
    """The network gives the same answer to every image."""
