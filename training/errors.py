"""Errors of training; each message says what failed, and the fix."""

from bundle.errors import DomainError


class TrainingError(DomainError):
    """Base of all expected errors; the command line prints the message and exits with 1."""


class RecipeError(TrainingError):
    """A recipe does not exist, or an entry is unknown or out of range."""


class DataError(TrainingError):
    """A data file is missing, damaged or invalid for the recipe."""


class DivergedError(TrainingError):
    """The loss is NaN or infinite."""


class WeakDetectorError(TrainingError):
    """A detector finds too few synthetic anomalies to be published."""


class ParityError(TrainingError):
    """Exported graphs differ too much from the model that they were made from."""


class ExportError(TrainingError):
    """An exported graph has nodes that CUDA would not run."""


class IncompatibleError(TrainingError):
    """A new version would encode unlike the version before."""


class CheckpointError(TrainingError):
    """A checkpoint cannot be read or written."""


class CollapsedError(TrainingError):
    """The network has the same output for every image."""
