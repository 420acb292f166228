"""eSpeak NG through ctypes: text to samples, and text to phonemes. The library and its voices come with the `espeakng_loader` wheel."""

from __future__ import annotations

import _ctypes
import contextlib
import ctypes
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from dropasr.errors import DataError

SAMPLE_RATE = 22050
"""Samples per second of eSpeak NG's formant synthesiser."""

# Values of espeak-ng's src/include/espeak-ng/speak_lib.h.
_AUDIO_OUTPUT_SYNCHRONOUS, _DONT_EXIT, _CHARS_UTF8, _PHONEMES_IPA = 2, 0x8000, 1, 0x02
_RATE, _VOLUME, _PITCH, _RANGE = 1, 2, 3, 4

_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


class Espeak:
    """The synthesiser, loaded for every call and unloaded after it.

    eSpeak NG keeps the phase of its pitch flutter, of its noise and of other generators in static variables that no call of
    its interface resets, so that the samples of a sentence depend on the sentences before it. Unloading the library does reset
    them, and takes half a millisecond; it works only while nothing else in the process has the library loaded.
    """

    def __init__(self, data: Path | None = None) -> None:
        """`data`: a folder `espeak-ng-data`; by default that of the wheel."""
        import espeakng_loader

        self.data = data or Path(espeakng_loader.get_data_path())
        self._library_path = espeakng_loader.get_library_path()
        self._callback = _Callback(self._collect)
        self._chunks: list[np.ndarray] = []

    def _collect(self, samples: ctypes._Pointer, count: int, events: int) -> int:
        if samples and count > 0:
            self._chunks.append(np.ctypeslib.as_array(samples, shape=(count,)).copy())
        return 0

    @contextlib.contextmanager
    def _loaded(self, voice: str) -> Iterator[ctypes.CDLL]:
        language, _, variant = voice.partition("+")
        library = ctypes.CDLL(self._library_path)
        try:
            library.espeak_TextToPhonemes.restype = ctypes.c_char_p
            rate = library.espeak_Initialize(_AUDIO_OUTPUT_SYNCHRONOUS, 0, str(self.data.parent).encode(), _DONT_EXIT)
            if rate != SAMPLE_RATE:
                raise DataError(
                    f"eSpeak NG with the data of {self.data}: expected {SAMPLE_RATE} Hz, found {rate}. "
                    "Install espeakng-loader anew (requirements.txt)."
                )
            # The C library's generator drives the noise of some voices.
            ctypes.CDLL(None).srand(1)
            library.espeak_SetSynthCallback(self._callback)
            # eSpeak NG itself accepts an unknown variant in silence.
            known = not variant or (self.data / "voices" / "!v" / variant).is_file()
            if not known or library.espeak_SetVoiceByName(voice.encode()) != 0:
                raise DataError(
                    f"eSpeak NG has no voice '{voice}': expected a language of {self.data}/lang, then, after a `+`, a variant of "
                    f"{self.data}/voices/!v. Correct corpus.options."
                )
            yield library
            library.espeak_Terminate()
        finally:
            _ctypes.dlclose(library._handle)

    def speak(self, text: str, voice: str, rate: int, pitch: int, pitch_range: int) -> np.ndarray:
        """Samples `(S,)`, int16 at `SAMPLE_RATE`; they depend on the arguments alone.

        `voice` is `LANGUAGE+VARIANT`, `rate` is in words per minute (80 to 450), `pitch` and `pitch_range` go from 0 to 99
        (50: the voice's own). Raises DataError where the voice is unknown or says nothing.
        """
        self._chunks = []
        with self._loaded(voice) as library:
            for parameter, value in ((_RATE, rate), (_VOLUME, 100), (_PITCH, pitch), (_RANGE, pitch_range)):
                library.espeak_SetParameter(parameter, value, 0)
            data = text.encode("utf-8")
            library.espeak_Synth(data, len(data) + 1, 0, 1, 0, _CHARS_UTF8, None, None)
            library.espeak_Synchronize()
        if not self._chunks:
            raise DataError(f"eSpeak NG made no samples of '{text}' with the voice '{voice}'; choose another voice.")
        return np.concatenate(self._chunks)

    def phonemes(self, texts: list[str], voice: str = "en-us") -> list[list[list[str]]]:
        """IPA phonemes, stress marks included: per text a list of spoken words (`in the` may be one), each a list of phonemes."""
        mode = _PHONEMES_IPA | (ord("_") << 8)
        result = []
        with self._loaded(voice) as library:
            for text in texts:
                buffer = ctypes.create_string_buffer(text.encode("utf-8"))
                pointer = ctypes.c_void_p(ctypes.addressof(buffer))
                parts = []
                while pointer.value:
                    parts.append((library.espeak_TextToPhonemes(ctypes.byref(pointer), _CHARS_UTF8, mode) or b"").decode("utf-8"))
                result.append([[phone for phone in word.split("_") if phone] for word in " ".join(parts).split()])
        return result
