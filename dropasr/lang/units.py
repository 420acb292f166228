"""Output units of the acoustic model: HMM states of phones, or of left biphones that share units (tying)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Union

import numpy as np

from dropasr.errors import DataError
from dropasr.files import read_json, write_json
from dropasr.lang.lexicon import SILENCE


@dataclass(frozen=True)
class OutputUnits:
    """One unit (pdf) per HMM state, or one per class of left biphone states; the units of silence come first.

    Without `tying` each phone has `states_per_phone` units of its own. With it, `tying` holds the unit of every (left phone, phone,
    state), flattened in that order: the left phone is silence, then each of `phones`; the phone is one of `phones`. Silence is never
    tied. A unit belongs to one state of one phone, and units are numbered by phone and state.
    """

    phones: tuple[str, ...]
    states_per_phone: int
    silence_states: int
    tying: Union[tuple[int, ...], None] = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "phones", tuple(self.phones))
        if len(set(self.phones)) != len(self.phones) or SILENCE in self.phones:
            raise DataError(f"output units: expected different phones without {SILENCE}, found {' '.join(self.phones)}.")
        object.__setattr__(self, "_position", {phone: index for index, phone in enumerate(self.phones)})
        shape = (1 + len(self.phones), len(self.phones), self.states_per_phone)
        if self.tying is None:
            own = self.silence_states + np.arange(shape[1] * shape[2]).reshape(shape[1:])
            table = np.broadcast_to(own, shape)
        else:
            object.__setattr__(self, "tying", tuple(int(unit) for unit in self.tying))
            if len(self.tying) != np.prod(shape):
                raise DataError(f"output units: expected {np.prod(shape)} tied states, found {len(self.tying)}. Run stage 4 again.")
            table = np.array(self.tying, dtype=np.int64).reshape(shape)
        owner = self._owners(table)
        for name, value in (("_table", table), ("_owner", owner)):
            value.setflags(write=False)
            object.__setattr__(self, name, value)

    def _owners(self, table: np.ndarray) -> np.ndarray:
        """Phone (0 for silence) and state of every unit, `(K, 2)`; DataError where a unit belongs to several, or to none."""
        phone, state = np.broadcast_arrays(*np.ogrid[: len(self.phones), : self.states_per_phone])
        owner = np.full((int(table.max(initial=self.silence_states - 1)) + 1, 2), -1)
        owner[: self.silence_states] = np.stack([np.zeros(self.silence_states), np.arange(self.silence_states)], axis=1)
        pairs = np.stack([phone + 1, state], axis=-1)
        if table.size and table.min() >= self.silence_states:
            owner[table] = pairs
        if (owner < 0).any() or (owner[table] != pairs).any():
            raise DataError("output units: expected each unit to belong to one phone state, and none to be left over. Run stage 4 again.")
        return owner

    @property
    def num_units(self) -> int:
        """Number of outputs of the acoustic model."""
        return len(self._owner)  # type: ignore[attr-defined]

    @property
    def table(self) -> np.ndarray:
        """Unit of every (left phone, phone, state), read-only, `(1+P, P, S)`: see `tying`."""
        return self._table  # type: ignore[attr-defined]

    def num_states(self, phone: str) -> int:
        """Emitting HMM states of a phone; also its shortest duration in frames."""
        return self.silence_states if phone == SILENCE else self.states_per_phone

    def _index(self, phone: str) -> int:
        position: dict[str, int] = self._position  # type: ignore[attr-defined]
        if phone not in position:
            raise DataError(f"output units: no phone '{phone}' (known: {SILENCE} {' '.join(self.phones)}). Run stage 3 again.")
        return position[phone]

    def pdf(self, phone: str, state: int, left: str = SILENCE) -> int:
        """Unit of HMM state `state` (from 0) of `phone` after the phone `left`. Raises DataError for what does not exist."""
        if not 0 <= state < self.num_states(phone):
            raise DataError(f"output units: phone '{phone}' has states 0 to {self.num_states(phone) - 1}, asked for {state}.")
        if phone == SILENCE:
            return state
        return int(self.table[0 if left == SILENCE else 1 + self._index(left), self._index(phone), state])

    def pdfs(self, phone: str, left: str = SILENCE) -> list[int]:
        """All units of a phone after the phone `left`, in order."""
        return [self.pdf(phone, state, left) for state in range(self.num_states(phone))]

    def phone_of(self, pdf: int) -> str:
        """The phone that a unit belongs to."""
        if not 0 <= pdf < self.num_units:
            raise DataError(f"output units: expected a unit from 0 to {self.num_units - 1}, found {pdf}.")
        index = int(self.phone_index(np.asarray(pdf)))
        return SILENCE if index == 0 else self.phones[index - 1]

    def is_silence(self, pdf: np.ndarray) -> np.ndarray:
        """Boolean array: which units are silence. Any shape."""
        return np.asarray(pdf) < self.silence_states

    def phone_index(self, pdf: np.ndarray) -> np.ndarray:
        """Phone of each unit as a number, 0 for silence. Any shape."""
        return self._owner[np.asarray(pdf), 0]  # type: ignore[attr-defined]

    def state_index(self, pdf: np.ndarray) -> np.ndarray:
        """HMM state of each unit within its phone. Any shape."""
        return self._owner[np.asarray(pdf), 1]  # type: ignore[attr-defined]

    def tied(self, table: np.ndarray) -> OutputUnits:
        """The same phones with the units of `table` `(1+P, P, S)`."""
        return OutputUnits(self.phones, self.states_per_phone, self.silence_states, tuple(np.asarray(table).ravel().tolist()))

    def describe(self) -> dict[str, Any]:
        """What `save` writes."""
        value = {"phones": list(self.phones), "states_per_phone": self.states_per_phone, "silence_states": self.silence_states}
        return value if self.tying is None else {**value, "tying": list(self.tying)}

    def save(self, path: str | Path) -> None:
        """Write as JSON."""
        write_json(path, self.describe())

    @classmethod
    def from_description(cls, value: Mapping[str, Any]) -> OutputUnits:
        """The units that `describe` described; KeyError, TypeError or ValueError for something else."""
        tying = value.get("tying")
        return cls(tuple(value["phones"]), int(value["states_per_phone"]), int(value["silence_states"]), tying and tuple(tying))

    @classmethod
    def load(cls, path: str | Path) -> OutputUnits:
        """Read what `save` wrote. Raises DataError that names the file."""
        try:
            return cls.from_description(read_json(path))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path}: expected phones, states_per_phone and silence_states, found {error!r}. Run stage 4 again.") from None
