"""Copies of cuts at other speeds and volumes: lengths and pitch from first principles, and the same result every time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from lhotse import MonoCut, Recording, SupervisionSegment
from pydantic import ValidationError

from dropasr.config import FeaturesConfig
from dropasr.data.perturb import perturbed

RATE = 16000
TONE = 1000.0


@pytest.fixture
def cuts(tmp_path: Path) -> list[MonoCut]:
    """The second half of each of two recordings of one second: a tone, with another one before it."""
    found = []
    for name, speaker in (("a", "anna"), ("b", None)):
        time = np.arange(RATE) / RATE
        samples = 0.5 * np.sin(2 * np.pi * np.where(time < 0.5, 200.0, TONE) * time)
        soundfile.write(tmp_path / f"{name}.wav", samples, RATE, subtype="FLOAT")
        recording = Recording.from_file(tmp_path / f"{name}.wav")
        supervision = SupervisionSegment(name, name, 0.0, 0.5, text=f"word {name}", speaker=speaker)
        found.append(MonoCut(name, 0.5, 0.5, 0, supervisions=[supervision], recording=recording))
    return found


def pitch(samples: np.ndarray) -> float:
    """Frequency of a tone, Hz: where its spectrum is largest."""
    return np.abs(np.fft.rfft(samples * np.hanning(len(samples)), 8 * RATE)).argmax() / 8


@pytest.mark.parametrize("speed", [0.9, 1.1])
def test_a_copy_is_longer_or_shorter_and_its_pitch_moves(cuts: list[MonoCut], speed: float) -> None:
    (_, _, copy, other) = [cut for cut, _ in perturbed(cuts, [speed], None)]
    samples = copy.load_audio()[0]
    assert len(samples) == copy.num_samples == pytest.approx(RATE / 2 / speed, abs=1)
    assert pitch(samples[400:-400]) == pytest.approx(TONE * speed, abs=2)
    assert copy.supervisions[0].duration == pytest.approx(copy.duration) and copy.supervisions[0].text == "word a"
    assert (copy.id, copy.supervisions[0].id, copy.supervisions[0].speaker) == (f"sp{speed}-a", f"sp{speed}-a", f"sp{speed}-anna")
    assert (other.id, other.supervisions[0].speaker) == (f"sp{speed}-b", None)


def test_the_originals_stand_first_and_are_not_changed(cuts: list[MonoCut]) -> None:
    pairs = perturbed(cuts, [0.9, 1.1], None)
    assert [(cut.id, original) for cut, original in pairs] == [
        *(("a", "a"), ("b", "b"), ("sp0.9-a", "a"), ("sp0.9-b", "b"), ("sp1.1-a", "a"), ("sp1.1-b", "b"))
    ]
    assert [cut for cut, _ in pairs[:2]] == cuts and cuts[0].supervisions[0].speaker == "anna"


def test_volume_is_a_factor_that_depends_on_the_id(cuts: list[MonoCut]) -> None:
    plain, loud, again = (
        dict((cut.id, cut.load_audio()) for cut, _ in perturbed(cuts, [1.1], volume)) for volume in (None, (0.5, 2), (0.5, 2))
    )
    factors = []
    for id_, samples in plain.items():
        np.testing.assert_array_equal(loud[id_], again[id_])
        factor = float(np.abs(loud[id_]).max() / np.abs(samples).max())
        np.testing.assert_allclose(loud[id_], factor * samples, atol=1e-6)
        factors.append(factor)
    assert all(0.5 <= factor <= 2 for factor in factors) and len({round(factor, 4) for factor in factors}) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"speed_perturb": [0.9, 1.0]}, "none of them 1, found 1"),
        ({"speed_perturb": [0.9, 0.9]}, "each once"),
        ({"speed_perturb": [3]}, "between 0.5 and 2"),
        ({"volume_perturb": [2, 0.5]}, "least ≤ largest, found 2 and 0.5"),
        ({"volume_perturb": [0.5, 2], "normalise": "utterance"}, "takes the volume away again"),
    ],
)
def test_wrong_options(options: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        FeaturesConfig(**options)
