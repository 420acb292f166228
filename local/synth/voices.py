"""Speakers: voice variants for eSpeak NG, drawn at random, so that a corpus may have as many as it needs.

A variant file scales the formants of the synthesiser's own (male) voice and sets pitch, source and tone. The ranges follow what differs
between people: vocal tracts of women are shorter by about a sixth, single formants scatter around that, levels and bandwidths vary more.
Breath noise and the `klatt` synthesisers stay out, because their samples depend on what was said before.
"""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np

from synth.espeak import Espeak

_FORMANTS = 9


def variant(speaker: str) -> str:
    """The variant file of a speaker; the same name gives the same voice."""
    drawn = random.Random(f"voice/{speaker}")
    female = drawn.random() < 0.5
    tract = drawn.uniform(106, 122) if female else drawn.uniform(88, 106)
    low = drawn.randint(135, 210) if female else drawn.randint(70, 120)
    lines = [
        "language variant",
        f"name {speaker}",
        f"gender {'female' if female else 'male'}",
        f"pitch {low} {low + drawn.randint(20, 70)}",
        f"flutter {drawn.randint(0, 8)}",
        f"roughness {drawn.randint(0, 3)}",
        f"voicing {drawn.randint(70, 150)}",
        f"consonants {drawn.randint(60, 130)} {drawn.randint(60, 130)}",
        f"intonation {drawn.randint(1, 4)}",
        f"tone 600 {drawn.randint(150, 255)} 1200 {drawn.randint(60, 200)} 2000 {drawn.randint(40, 150)}",
    ]
    for formant in range(_FORMANTS):
        # The formants above the fifth shape the voice more than the vowels.
        scatter = 3.0 if formant < 6 else 6.0
        frequency = round(tract + drawn.gauss(0, scatter))
        height = drawn.randint(75, 125) if formant < 4 else drawn.randint(40, 110)
        lines.append(f"formant {formant} {frequency} {height} {drawn.randint(80, 150)}")
    return "\n".join(lines) + "\n"


class Voices:
    """eSpeak NG with drawn speakers, in a data folder of its own: links to that of the wheel, and one variant at a time.

    eSpeak NG lists at most 350 voices and finds none of the others. One process may use a folder at a time.
    """

    def __init__(self, folder: Path) -> None:
        wheel = Espeak().data
        self._variants = folder / wheel.name / "voices" / "!v"
        self._variants.mkdir(parents=True, exist_ok=True)
        for entry in wheel.iterdir():
            if entry.name != "voices":
                (folder / wheel.name / entry.name).symlink_to(entry)
        self._espeak = Espeak(folder / wheel.name)

    def speak(self, text: str, speaker: str, accent: str, rate: int, pitch: int, pitch_range: int) -> np.ndarray:
        """Samples `(S,)` of a speaker (any name; it decides the voice) with an accent (a language of eSpeak NG); see `Espeak.speak`."""
        if not (self._variants / speaker).exists():
            for other in self._variants.iterdir():
                other.unlink()
            (self._variants / speaker).write_text(variant(speaker), encoding="utf-8")
        return self._espeak.speak(text, f"{accent}+{speaker}", rate, pitch, pitch_range)
