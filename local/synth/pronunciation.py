"""Pronunciations from eSpeak NG's American English, in ARPAbet names (with AX for schwa and DX for the flap)."""

from __future__ import annotations

from collections import Counter

from dropasr.errors import DataError
from synth.espeak import Espeak

_ARPABET = {
    "p": "P", "b": "B", "t": "T", "d": "D", "k": "K", "ɡ": "G", "tʃ": "CH", "dʒ": "JH", "f": "F", "v": "V", "θ": "TH", "ð": "DH",
    "s": "S", "z": "Z", "ʃ": "SH", "ʒ": "ZH", "h": "HH", "m": "M", "n": "N", "ŋ": "NG", "l": "L", "ɹ": "R", "w": "W", "j": "Y",
    "ɾ": "DX", "ɪ": "IH", "ᵻ": "IH", "ɛ": "EH", "æ": "AE", "ʌ": "AH", "ə": "AX", "ɐ": "AX", "ʊ": "UH", "i": "IY", "iː": "IY",
    "uː": "UW", "ɑː": "AA", "ɑ": "AA", "ɔ": "AO", "ɔː": "AO", "ɜː": "ER", "ɚ": "ER", "eɪ": "EY", "aɪ": "AY", "ɔɪ": "OY",
    "oʊ": "OW", "aʊ": "AW", "əl": "AX L", "n̩": "AX N", "iə": "IY AX", "aɪə": "AY AX", "aɪɚ": "AY ER", "ɑːɹ": "AA R", "ɔːɹ": "AO R",
    "oːɹ": "AO R", "ɛɹ": "EH R", "ɪɹ": "IH R", "ʊɹ": "UH R",
}  # fmt: skip
_RARE = 0.05
"""Share of a word's occurrences below which a pronunciation is left out."""


def _phones(word: str, symbols: list[str]) -> str:
    phones = []
    for symbol in symbols:
        plain = symbol.strip("ˈˌ")
        if plain not in _ARPABET:
            raise DataError(
                f"the word '{word}': no phone is known for eSpeak NG's '{plain}' in '{'_'.join(symbols)}'; add it to {__file__}."
            )
        phones.append(_ARPABET[plain])
    return " ".join(phones)


def lexicon(words: list[str], sentences: list[list[str]]) -> dict[str, list[str]]:
    """Pronunciations (phones joined by spaces) of upper-case `words`, the most frequent first; `sentences` are made of `words`.

    A word is looked up alone and as spoken in `sentences` (the TO of `ten to five` is weak): a sentence counts where eSpeak NG
    writes as many words as it was given. Raises DataError for a symbol without a phone.
    """
    synthesiser = Espeak()
    counts: dict[str, Counter[str]] = {word: Counter() for word in words}
    for word, spoken in zip(words, synthesiser.phonemes([word.lower() for word in words])):
        counts[word][_phones(word, [symbol for part in spoken for symbol in part])] += 1
    for sentence, spoken in zip(sentences, synthesiser.phonemes([" ".join(sentence).lower() for sentence in sentences])):
        if len(spoken) == len(sentence):
            for word, symbols in zip(sentence, spoken):
                counts[word][_phones(word, symbols)] += 1
    return {
        word: [phones for phones, count in found.most_common() if count >= _RARE * sum(found.values())] for word, found in counts.items()
    }
