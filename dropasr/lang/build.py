"""Stage 3: lexicon, word list and n-gram."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dropasr.config import Config
from dropasr.data.text import Normaliser
from dropasr.errors import ConfigError, DataError, StageError
from dropasr.files import atomic_path, write_json
from dropasr.lang import graph, language_model
from dropasr.lang.language_model import Dev, Models, Source, map_unknown
from dropasr.lang.lexicon import SENTENCE_END, Lexicon
from dropasr.lang.lexicon_build import from_dictionary, given_file, given_lexicon, restricted, save_for_alignment, spelled
from dropasr.lang.ngram import NGram
from dropasr.lang.pieces import write_pieces
from dropasr.lang.texts import (
    COPY_RULES,
    HeldOut,
    Sentences,
    choose_words,
    count_words,
    mean_frequencies,
    read_sentences,
    without_copies,
)
from dropasr.log import get_logger
from dropasr.paths import Paths

_log = get_logger(__name__)
GRAPH_MODEL, RESCORING_MODEL = "lm.arpa", "lm-rescore.arpa"


def transcripts(paths: Paths, split: str) -> Sentences:
    """Words of every utterance of a split, from its cut manifest. Raises StageError where the manifest is missing."""
    manifest = paths.cuts(split)
    if not manifest.exists():
        raise StageError(f"{manifest}: the cut manifest is missing. Run stage 1 (data).")
    import lhotse

    return [
        [word for supervision in cut.supervisions for word in (supervision.text or "").split()]
        for cut in lhotse.load_manifest_lazy(manifest)
    ]


def _given_text(name: str, key: str, config: Config, held_out: HeldOut) -> Sentences:
    """A text of the configuration without copies of dev and test sentences. Raises DataError where nothing is left."""
    file = given_file(name, key)
    found = read_sentences(file, Normaliser(config.corpus.text))
    sentences, copies = without_copies(found, held_out)
    left_out = ", ".join(f"{copies[rule]} {words}" for rule, words in COPY_RULES.items())
    _log.info("%s: %d sentences; left out: %s", file.name, len(sentences), left_out)
    if found and not sentences:
        raise DataError(
            f"{file} ({key}): all of its {len(found)} sentences are copies of dev or test sentences, which must not be in the text of the "
            "language model. Give other text; where all sentences are known in advance, let the prepare script write lm_text.txt, or "
            "give a model in lang.arpa."
        )
    return sentences


def _sources(config: Config, paths: Paths, train: Sentences, references: Mapping[str, Sentences]) -> list[Source]:
    """Text for the n-gram; never transcripts of dev or test, nor copies of them in a text that is given."""
    lang, made = config.lang, paths.manifests / "lm_text.txt"
    given = [(lang.text, "lang.text")] if lang.text is not None else []
    given += [(name, "lang.texts") for name in lang.texts]
    sources = []
    if lang.text is None and made.exists():
        sources.append(Source(str(made), read_sentences(made)))
    if lang.texts or (lang.text is None and not sources):
        sources.insert(0, Source("train", train))
    if given:
        held_out = HeldOut(line for lines in references.values() for line in lines)
        sources += [Source(Path(name).name, _given_text(name, key, config, held_out)) for name, key in given]
    return sources


def _frequencies(sources: Sequence[Source], apart: bool) -> Mapping[str, float]:
    if apart:
        return mean_frequencies(source.sentences for source in sources)
    return count_words(line for source in sources for line in source.sentences)


def _lexicon(config: Config, paths: Paths, train: Sentences, frequencies: Mapping[str, float]) -> tuple[Lexicon, dict[str, Any]]:
    """The lexicon, every word of train in it, and figures for the report. `frequencies`: words of the language model's text."""
    lang = config.lang
    given, required = given_lexicon(lang, paths), set(count_words(train))
    figures: dict[str, Any] = {}
    if lang.dictionary is not None:
        words = choose_words(frequencies, required, lang.vocabulary)
        lexicon, figures = from_dictionary(lang, paths, words, required, given)
    elif given is not None:
        lexicon = given
        if lang.vocabulary is not None:
            known = {word: number for word, number in frequencies.items() if word in given.entries}
            lexicon = restricted(given, choose_words(known, required | {lang.unknown_word}, lang.vocabulary))
    elif lang.units != "phones":
        lexicon = spelled(choose_words(frequencies, required, lang.vocabulary))
    else:
        raise ConfigError(
            f"lang.lexicon is not set and {paths.manifests / 'lexicon.txt'} does not exist. Set lang.lexicon or lang.dictionary, or let "
            "the prepare script make a lexicon."
        )
    missing = lexicon.missing(required)
    if missing:
        message = f"{len(missing)} words are not in the lexicon: {' '.join(missing[:10])}"
        raise DataError(f"{paths.cuts('train')}: {message}. Add them, or set corpus.unknown_words and redo stage 1.")
    pronunciations = sum(map(len, lexicon.entries.values()))
    sizes = {"words": len(lexicon.entries), "pronunciations": pronunciations, "phones": len(lexicon.phones) + 1}
    _log.info("lexicon: %d words, %d pronunciations, %d phones", *sizes.values())
    return lexicon, {**sizes, **figures}


def _outside(references: Mapping[str, Sentences], lexicon: Lexicon) -> dict[str, dict[str, int]]:
    """Running words of dev and the tests, and how many of them are not in the lexicon: all of these are errors, whatever the net."""
    result = {}
    for split, sentences in references.items():
        counts = count_words(sentences)
        words, outside = sum(counts.values()), sum(counts[word] for word in lexicon.missing(counts))
        result[split] = {"words": words, "outside_lexicon": outside}
        if outside:
            text = "%s: %d of %d words (%.2f %%) are not in the lexicon; they stay in the references and count as errors"
            _log.info(text, split, outside, words, 100 * outside / words)
    return result


def _estimated(config: Config, sources: Sequence[Source], dev: Dev) -> Models:
    """Models of the text, and what the report says about it."""
    sizes = {"sentences": 0, "words": 0, "words_outside_lexicon": 0}
    mapped = []
    for source in sources:
        sentences, unknown = map_unknown(source.sentences, dev.words, config.lang.unknown_word)
        words = sum(map(len, sentences))
        for key, number in zip(sizes, (len(sentences), words, unknown), strict=True):
            sizes[key] += number
        if unknown:
            _log.warning("%s: %d of %d words are not in the lexicon", source.name, unknown, words)
        mapped.append(Source(source.name, sentences))
    models = language_model.estimated(config.lang, mapped, dev)
    models.report.update(source=" + ".join(source.name for source in sources), **sizes)
    return models


def _given(config: Config, file: Path, model: NGram, dev: Dev) -> Models:
    """The given model, and what the report says about it. Raises DataError where model and lexicon have no word in common."""
    words, entries = (names - {SENTENCE_END, config.lang.unknown_word} for names in (model.vocabulary, dev.words))
    shared = words & entries
    if not shared:
        raise DataError(f"{file}: none of its words is in the lexicon. Check upper and lower case, or give another model.")
    if words != entries:
        text = "%s: %d words; the graph has the %d that are among the %d of the lexicon, and no other word can be recognised"
        _log.warning(text, file, len(words), len(shared), len(entries))
    models = language_model.given(config.lang, model, dev)
    models.report.update(source=str(file), model_words=len(words), graph_words=len(shared))
    return models


def _write(paths: Paths, models: Models, given: Path | None) -> None:
    if given is None:
        models.graph.to_arpa(paths.lang / GRAPH_MODEL)
    else:
        with atomic_path(paths.lang / GRAPH_MODEL) as temporary:
            shutil.copyfile(given, temporary)
    if models.rescoring is not None:
        models.rescoring.to_arpa(paths.lang / RESCORING_MODEL)
    else:
        (paths.lang / RESCORING_MODEL).unlink(missing_ok=True)


def build(config: Config, paths: Paths, nj: int = 1) -> None:
    """Write lexicons, words, ARPA models and `report.json` to `paths.lang`. `nj` is not used: this takes a minute at most.

    Raises ConfigError, DataError or StageError.
    """
    lang = config.lang
    paths.lang.mkdir(parents=True, exist_ok=True)
    train = transcripts(paths, "train")
    arpa = given_file(lang.arpa, "lang.arpa") if lang.arpa is not None else None
    given = NGram.from_arpa(arpa) if arpa is not None else None
    references = {split: transcripts(paths, split) for split in config.corpus.splits if split != "train"}
    sources = _sources(config, paths, train, references) if given is None else []
    lexicon, lexicon_report = _lexicon(config, paths, train, _frequencies(sources, lang.interpolate) if given is None else given.unigrams())
    lexicon.save(paths.lang / "lexicon.txt")
    dev = Dev(references["dev"], lexicon.entries, lang.unknown_word)
    save_for_alignment(lang, paths, count_words(dev.spoken), lexicon)
    write_pieces(config, train, paths.lang)
    graph.save_words(paths.lang / "words.txt", graph.word_symbols(lexicon))
    if given is None:
        models = _estimated(config, sources, dev)
    else:
        models = _given(config, arpa, given, dev)
    _write(paths, models, arpa if lang.prune_to is None else None)
    report = {"lexicon": lexicon_report, "language_model": models.report, "references": _outside(references, lexicon)}
    write_json(paths.lang / "report.json", report)
