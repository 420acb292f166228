"""The rounds of flat start: their plan, and their labels on disk, so that a killed stage goes on behind its last whole round."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Union

import numpy as np

from dropasr.config import Config
from dropasr.errors import DataError
from dropasr.files import atomic_path, hash_of
from dropasr.lang.units import OutputUnits
from dropasr.log import get_logger

FORMAT = 1
"""Counts the forms that the files of rounds had; those of another form are not used. The first had no number."""
logger = get_logger(__name__)


@dataclass(frozen=True)
class Round:
    """One round; `everything`: it labels all copies and dev too, for the next nets to learn from."""

    kind: Literal["gaussian", "net", "tying", "biphone"]
    number: int
    all_originals: bool = True
    everything: bool = False
    options: tuple[Any, ...] = ()

    @property
    def name(self) -> str:
        """What the log and the report call it."""
        titles = {"gaussian": "Gaussian round", "net": "net round", "tying": "tying", "biphone": "biphone round"}
        return titles[self.kind] + (f" {self.number}" if self.kind != "tying" else "")

    @property
    def folder(self) -> str:
        """Folder of its net below `align`."""
        return f"{self.kind}{self.number}"


def plan(config: Config) -> list[Round]:
    """The rounds in order."""
    align, lang = config.align, config.lang
    tied = lang.tying != "none"
    biphones = align.biphone_rounds if tied else 0
    rounds = [Round("gaussian", n, n == align.gaussian_rounds) for n in range(1, align.gaussian_rounds + 1)]
    rounds += [Round("net", n, everything=n == align.net_rounds and not biphones) for n in range(1, align.net_rounds + 1)]
    if tied:
        wanted = lang.num_units if lang.tying == "likelihood" else 0
        rounds.append(Round("tying", 0, options=(lang.tying, wanted, lang.min_count)))
    return rounds + [Round("biphone", n, everything=True) for n in range(1, biphones + 1)]


@dataclass
class Labelling:
    """Units, labels of train `(N,)` and, when everything is labelled, of dev, and what the rounds changed."""

    units: OutputUnits
    train: np.ndarray
    dev: np.ndarray
    report: list[dict[str, Any]]


class Rounds:
    """The labels of the last round, and of the one before tying, so that other units do not begin anew."""

    def __init__(self, folder: Path, rounds: list[Round], identity: dict[str, Any]) -> None:
        """`identity` is everything that all rounds depend on; a round also depends on those before it."""
        self._rounds = rounds
        told = [[step.kind, step.number, step.all_originals, step.everything, *step.options] for step in rounds]
        names = [hash_of([identity, told[: position + 1]])[:16] for position in range(len(rounds))]
        self._files = {step: folder / f"{step.folder}-{name}.npz" for step, name in zip(rounds, names, strict=True)}

    def latest(self) -> tuple[int, Union[Labelling, None]]:
        """Number of finished rounds, and the labels after them."""
        for done in range(len(self._rounds), 0, -1):
            file = self._files[self._rounds[done - 1]]
            state = _load(file) if file.exists() else None
            if state is not None:
                return done, state
        return 0, None

    def save(self, step: Round, state: Labelling) -> None:
        """Write the labels after a round, then remove those that nothing can go on from any more."""
        path = self._files[step]
        about = json.dumps({"format": FORMAT, "units": state.units.describe(), "report": state.report})
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, train=state.train, dev=state.dev, about=np.array(about))
        done = self._rounds[: self._rounds.index(step) + 1]
        kept = {path, *(self._files[before] for before, after in zip(done, done[1:]) if after.kind == "tying")}
        for other in path.parent.glob("*.npz"):
            if other not in kept:
                other.unlink()


def _load(path: Path) -> Union[Labelling, None]:
    """The labels of a file, or None where another version of the program wrote it in another form."""
    try:
        with np.load(path, allow_pickle=False) as file:
            about = json.loads(str(file["about"]))
            if about.get("format", 1) != FORMAT:
                logger.warning(
                    f"{path}: expected format {FORMAT} of the labels of a round, found {about['format']}. The round is done again."
                )
                return None
            return Labelling(OutputUnits.from_description(about["units"]), file["train"], file["dev"], about["report"])
    except Exception as error:
        raise DataError(f"{path}: expected the labels of a round of flat start ({error}). Remove the file and run stage 4 again.") from None
