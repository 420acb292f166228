"""The errors that a user can cause. The command line prints their message as one paragraph and exits with `exit_code`.

A message says which file or id, what was expected, what was found, and what to do next.
"""


class DropasrError(Exception):
    """Base of every expected failure."""

    exit_code = 1


class UsageError(DropasrError):
    """A wrong option or command line."""

    exit_code = 2


class ConfigError(UsageError):
    """A configuration that cannot be used: unknown key, wrong type, values that contradict each other."""


class DataError(DropasrError):
    """Audio, transcripts, lexicon or language-model text that cannot be used."""


class StageError(DropasrError):
    """A stage whose inputs are missing or were made with another configuration."""


class CheckpointError(DropasrError):
    """A checkpoint that is missing, damaged, or belongs to another net."""


class ExportError(DropasrError):
    """An exported net that is missing, damaged, or does not give what the net it was made of gives."""


class CompactionError(DropasrError):
    """A compaction that would not leave the outputs as they were, or that cannot meet its budget."""


class DivergedError(CompactionError):
    """A net whose training diverged before its units could be removed."""


class MeasurementError(DropasrError):
    """A WER or RTF that must not be reported, because its counterpart is missing or its inputs are incomplete."""
