"""The lexicon of an experiment: given, or made for a word list from a dictionary and a grapheme-to-phoneme model."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dropasr.config import REPOSITORY, LangConfig
from dropasr.errors import ConfigError, DataError
from dropasr.files import hash_of, write_text
from dropasr.lang import g2p
from dropasr.lang.dictionary import PACKAGE, Entries, look_up, read_dictionary
from dropasr.lang.lexicon import SILENCE, Lexicon
from dropasr.log import get_logger
from dropasr.paths import Paths

_log = get_logger(__name__)
G2P_LIST = "g2p.txt"
ALIGN_LEXICON = "lexicon-align.txt"
_MARK = re.compile(r"<.*>|#.*")


def given_file(value: str, key: str) -> Path:
    """A path of the configuration, relative to the working directory or to the repository. Raises ConfigError."""
    for path in (Path(value), REPOSITORY / value):
        if path.is_file():
            return path
    raise ConfigError(f"{key}: no such file '{value}' (looked in {Path.cwd()} and {REPOSITORY}). Correct the path.")


def given_lexicon(lang: LangConfig, paths: Paths) -> Lexicon | None:
    """The lexicon of the configuration, or the one that the prepare script made; None where there is neither."""
    if isinstance(lang.lexicon, dict):
        return Lexicon.from_mapping(lang.lexicon)
    if lang.lexicon is not None:
        return Lexicon.load(given_file(lang.lexicon, "lang.lexicon"))
    made = paths.manifests / "lexicon.txt"
    return Lexicon.load(made) if made.exists() else None


def restricted(lexicon: Lexicon, words: Iterable[str]) -> Lexicon:
    """The entries of some words."""
    words = set(words)
    return Lexicon({word: variants for word, variants in lexicon.entries.items() if word in words})


def spelled(words: Iterable[str]) -> Lexicon:
    """Characters in place of phones: for nets whose units are characters or word pieces, which use the words alone."""
    return Lexicon.from_pairs(((word, list(word)) for word in words), "words of the training text")


def from_dictionary(
    lang: LangConfig, paths: Paths, words: set[str], required: set[str], given: Lexicon | None
) -> tuple[Lexicon, dict[str, Any]]:
    """Pronunciations of `words`: from `given`, else the dictionary, else by grapheme-to-phoneme; and figures for the report.

    A word that cannot be pronounced (none of its letters is in the dictionary) is left out unless it is `required`: then DataError.
    Writes `g2p.txt`, the pronunciations that the model gave, in the lexicon's form.
    """
    assert lang.dictionary is not None
    source = lang.dictionary if lang.dictionary == PACKAGE else str(given_file(lang.dictionary, "lang.dictionary"))
    entries = read_dictionary(source, lang.stress)
    extra = given.entries if given is not None else {}
    # Marks of other tools, such as the <unk> of an ARPA file, are no words: they must not get a pronunciation by their letters.
    words = {word for word in words if word in required or word in extra or not (word == lang.unknown_word or _MARK.fullmatch(word))}
    own = {word: extra[word] for word in words | {lang.unknown_word} if word in extra}
    found, missing = look_up(words - own.keys(), entries)
    begin = time.perf_counter()
    guessed = _pronouncer(entries, paths).pronounce(missing) if missing else {}
    seconds = time.perf_counter() - begin
    silent = [word for word in missing if word not in guessed]
    bad = [word for word in silent if word in required]
    if bad:
        raise DataError(
            f"{source}: {len(bad)} words of the training transcripts have no letter that occurs in the dictionary, so that they cannot be "
            f"pronounced: {' '.join(bad[:10])}. Give their pronunciations in lang.lexicon, or remove them by corpus.text."
        )
    write_text(paths.lang / G2P_LIST, "".join(f"{word} {' '.join(phones)}\n" for word, phones in guessed.items()))
    pairs = [(word, phones) for part in (own, found) for word, variants in part.items() for phones in variants]
    lexicon = Lexicon.from_pairs([*pairs, *guessed.items()], source)
    in_train = sum(word in required for word in guessed)
    _log.info(
        "%s: %d of %d words found; %d pronounced by the letter model in %.1f s (%d of them in train), listed in %s",
        source, len(found), len(words), len(guessed), seconds, in_train, G2P_LIST,
    )  # fmt: skip
    if silent:
        _log.warning("%d words of the text cannot be pronounced and are left out: %s", len(silent), " ".join(silent[:10]))
    report = {"from_dictionary": len(found), "given": len(own), "g2p": len(guessed), "g2p_in_train": in_train, "left_out": len(silent)}
    return lexicon, {**report, "g2p_seconds": round(seconds, 2)}


def for_alignment(lang: LangConfig, paths: Paths, words: Iterable[str], lexicon: Lexicon) -> Lexicon:
    """The lexicon with pronunciations of further `words`, those of dev, that alignment needs and the search must not know.

    They come from the given lexicon, else the dictionary and its letter model. Words that neither can pronounce, or not in the phones
    of `lexicon`, stay out.
    """
    wanted = set(lexicon.missing(words))
    if not wanted or lang.units != "phones":
        return lexicon
    given = given_lexicon(lang, paths)
    found = restricted(given, wanted).entries if given is not None else {}
    if lang.dictionary is not None:
        source = lang.dictionary if lang.dictionary == PACKAGE else str(given_file(lang.dictionary, "lang.dictionary"))
        entries = read_dictionary(source, lang.stress)
        known, missing = look_up(wanted - found.keys(), entries)
        guessed = _pronouncer(entries, paths).pronounce(missing) if missing else {}
        found = {**known, **{word: [phones] for word, phones in guessed.items()}, **found}
    phones = {SILENCE, *lexicon.phones}
    more = {word: variants for word, variants in found.items() if phones.issuperset(phone for variant in variants for phone in variant)}
    return Lexicon(dict(sorted({**lexicon.entries, **more}.items()))) if more else lexicon


def save_for_alignment(lang: LangConfig, paths: Paths, words: Iterable[str], lexicon: Lexicon) -> None:
    """Write `for_alignment` to `lexicon-align.txt`; no such file means that it is the lexicon itself."""
    larger, path = for_alignment(lang, paths, words, lexicon), paths.lang / ALIGN_LEXICON
    if larger is lexicon:
        path.unlink(missing_ok=True)
    else:
        larger.save(path)


def alignment_lexicon(paths: Paths) -> Path:
    """The file with the pronunciations of the words of train and dev."""
    path = paths.lang / ALIGN_LEXICON
    return path if path.exists() else paths.lang / "lexicon.txt"


def _pronouncer(entries: Entries, paths: Paths) -> g2p.Pronouncer:
    """The model trained on a dictionary, kept under the hash of the dictionary."""
    path = paths.data_dir / "g2p" / f"{hash_of([entries, g2p.ORDER, g2p.VERSION])[:16]}.arpa"
    if path.exists():
        return g2p.Pronouncer.load(path)
    begin = time.perf_counter()
    model = g2p.train(entries)
    model.to_arpa(path)
    _log.info("letter model: trained on %d words in %.1f s, %d n-grams", len(entries), time.perf_counter() - begin, sum(model.sizes))
    return g2p.Pronouncer(model)
