"""Output units of the acoustic model: the HMM states of context-independent phones."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from dropasr.errors import DataError
from dropasr.files import read_json, write_json
from dropasr.lang.lexicon import SILENCE


@dataclass(frozen=True)
class OutputUnits:
    """One unit (pdf) per HMM state: silence first (`silence_states` units), then `states_per_phone` units for each phone."""

    phones: tuple[str, ...]
    states_per_phone: int
    silence_states: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "phones", tuple(self.phones))
        if len(set(self.phones)) != len(self.phones) or SILENCE in self.phones:
            raise DataError(f"output units: expected different phones without {SILENCE}, found {' '.join(self.phones)}.")
        object.__setattr__(self, "_position", {phone: index for index, phone in enumerate(self.phones)})

    @property
    def num_units(self) -> int:
        """Number of outputs of the acoustic model."""
        return self.silence_states + self.states_per_phone * len(self.phones)

    def num_states(self, phone: str) -> int:
        """Emitting HMM states of a phone; also its shortest duration in frames."""
        return self.silence_states if phone == SILENCE else self.states_per_phone

    def pdf(self, phone: str, state: int) -> int:
        """Unit of HMM state `state` (from 0) of `phone`. Raises DataError for a phone or state that does not exist."""
        if not 0 <= state < self.num_states(phone):
            raise DataError(f"output units: phone '{phone}' has states 0 to {self.num_states(phone) - 1}, asked for {state}.")
        if phone == SILENCE:
            return state
        position: dict[str, int] = self._position  # type: ignore[attr-defined]
        if phone not in position:
            raise DataError(f"output units: no phone '{phone}' (known: {SILENCE} {' '.join(self.phones)}). Run stage 3 again.")
        return self.silence_states + position[phone] * self.states_per_phone + state

    def pdfs(self, phone: str) -> list[int]:
        """All units of a phone in order."""
        return [self.pdf(phone, state) for state in range(self.num_states(phone))]

    def phone_of(self, pdf: int) -> str:
        """The phone that a unit belongs to."""
        if not 0 <= pdf < self.num_units:
            raise DataError(f"output units: expected a unit from 0 to {self.num_units - 1}, found {pdf}.")
        return SILENCE if pdf < self.silence_states else self.phones[(pdf - self.silence_states) // self.states_per_phone]

    def is_silence(self, pdf: np.ndarray) -> np.ndarray:
        """Boolean array: which units are silence. Any shape."""
        return np.asarray(pdf) < self.silence_states

    def phone_index(self, pdf: np.ndarray) -> np.ndarray:
        """Phone of each unit as a number, 0 for silence. Any shape."""
        pdf = np.asarray(pdf)
        return np.where(self.is_silence(pdf), 0, 1 + (pdf - self.silence_states) // self.states_per_phone)

    def state_index(self, pdf: np.ndarray) -> np.ndarray:
        """HMM state of each unit within its phone. Any shape."""
        pdf = np.asarray(pdf)
        return np.where(self.is_silence(pdf), pdf, (pdf - self.silence_states) % self.states_per_phone)

    def save(self, path: str | Path) -> None:
        """Write as JSON."""
        write_json(path, asdict(self))

    @classmethod
    def load(cls, path: str | Path) -> OutputUnits:
        """Read what `save` wrote. Raises DataError that names the file."""
        value = read_json(path)
        try:
            return cls(tuple(value["phones"]), int(value["states_per_phone"]), int(value["silence_states"]))
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path}: expected phones, states_per_phone and silence_states, found {error!r}. Run stage 3 again.") from None
