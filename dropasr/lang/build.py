"""Stage 3: lexicon, output units, n-gram, and the decoding graph of every backend that is installed."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dropasr.config import REPOSITORY, Config, LangConfig
from dropasr.errors import ConfigError, DataError, StageError
from dropasr.files import atomic_path, write_json
from dropasr.lang import graph
from dropasr.lang.lexicon import Lexicon
from dropasr.lang.ngram import NGram, estimate
from dropasr.lang.units import OutputUnits
from dropasr.log import get_logger
from dropasr.paths import Paths

_log = get_logger(__name__)
Sentences = list[list[str]]


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


def _given_file(value: str, key: str) -> Path:
    """A path of the configuration, relative to the working directory or to the repository."""
    for path in (Path(value), REPOSITORY / value):
        if path.is_file():
            return path
    raise ConfigError(f"{key}: no such file '{value}' (looked in {Path.cwd()} and {REPOSITORY}). Correct the path.")


def _read_sentences(path: Path) -> Sentences:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: expected UTF-8 text, one sentence a line ({error}). Convert the file.") from None
    return [words for words in (line.split() for line in lines) if words]


def _lexicon(config: Config, paths: Paths) -> Lexicon:
    given = config.lang.lexicon
    if isinstance(given, dict):
        return Lexicon.from_mapping(given)
    if given is not None:
        return Lexicon.load(_given_file(given, "lang.lexicon"))
    made = paths.manifests / "lexicon.txt"
    if not made.exists():
        raise ConfigError(f"lang.lexicon is not set and {made} does not exist. Set lang.lexicon, or let the prepare script make it.")
    return Lexicon.load(made)


def _training_text(lang: LangConfig, paths: Paths) -> tuple[Sentences, str]:
    """Sentences for the n-gram and where they come from; never transcripts of dev or test."""
    made = paths.manifests / "lm_text.txt"
    if lang.text is not None:
        file = _given_file(lang.text, "lang.text")
        return _read_sentences(file), str(file)
    if made.exists():
        return _read_sentences(made), str(made)
    return transcripts(paths, "train"), str(paths.cuts("train"))


def _map_unknown(sentences: Sentences, lexicon: Lexicon, unknown_word: str) -> tuple[Sentences, int]:
    """Words outside the lexicon replaced by the unknown word where the lexicon has one; and their number."""
    count = sum(word not in lexicon.entries for sentence in sentences for word in sentence)
    if count and unknown_word in lexicon.entries:
        sentences = [[word if word in lexicon.entries else unknown_word for word in sentence] for sentence in sentences]
    return sentences, count


def _language_model(config: Config, paths: Paths, lexicon: Lexicon) -> tuple[NGram, dict[str, Any]]:
    """Write `lm.arpa`; the model and what the report says about it."""
    lang = config.lang
    target = paths.lang / "lm.arpa"
    if lang.arpa is not None:
        given = _given_file(lang.arpa, "lang.arpa")
        model = NGram.from_arpa(given)
        if not model.vocabulary & lexicon.entries.keys():
            raise DataError(f"{given}: none of its words is in the lexicon. Check upper and lower case, or give another model.")
        with atomic_path(target) as temporary:
            shutil.copyfile(given, temporary)
        return model, {"source": str(given), "smoothing": "given"}
    sentences, source = _training_text(lang, paths)
    words = sum(len(sentence) for sentence in sentences)
    sentences, unknown = _map_unknown(sentences, lexicon, lang.unknown_word)
    if unknown:
        _log.warning("%s: %d of %d words are not in the lexicon", source, unknown, words)
    model = estimate(sentences, lang.order, lang.smoothing, lexicon.entries)
    model.to_arpa(target)
    sizes = {"sentences": len(sentences), "words": words, "words_outside_lexicon": unknown}
    return model, {"source": source, "smoothing": lang.smoothing, **sizes}


def build_graphs(lang_dir: Path, transducers: graph.Transducers, backends: Sequence[str]) -> dict[str, dict[str, float]]:
    """Write the graph of each backend; its states, arcs and the seconds it took. Raises DataError for an empty graph."""
    sizes = {}
    for backend in backends:
        begin = time.perf_counter()
        if backend == "k2":
            from dropasr.lang import graph_k2

            built = graph_k2.build_k2_graph(transducers)
            built.save(lang_dir / graph_k2.FILE_NAME)
            states, arcs = built.arcs.num_states, built.arcs.num_arcs
        else:
            from dropasr.lang import graph_kaldi

            fst = graph_kaldi.build_kaldi_graph(transducers)
            graph_kaldi.save_graph(lang_dir / graph_kaldi.FILE_NAME, fst)
            states, arcs = graph_kaldi.graph_size(fst)
        if arcs == 0:
            raise DataError(f"{lang_dir}: the {backend} decoding graph is empty: no sentence of the language model has a pronunciation.")
        seconds = round(time.perf_counter() - begin, 2)
        sizes[backend] = {"states": states, "arcs": arcs, "seconds": seconds}
        _log.info("decoding graph (%s): %d states, %d arcs, made in %.2f s", backend, states, arcs, seconds)
    return sizes


def build(config: Config, paths: Paths, nj: int = 1, backends: Sequence[str] | None = None) -> None:
    """Write lexicon, units, words, ARPA model, graphs and `report.json` to `paths.lang`. `nj` is not used: this takes seconds.

    `backends`: graphs to build; by default those of every backend that can be imported.
    Raises ConfigError, DataError or StageError.
    """
    lang = config.lang
    paths.lang.mkdir(parents=True, exist_ok=True)
    if backends is None:
        backends = graph.installed_backends()
    if not backends:
        raise ConfigError(f"no search backend can be imported (kaldi: {graph.import_error('kaldi')}). pip install kaldi-decoder kaldifst.")
    lexicon = _lexicon(config, paths)
    missing = lexicon.missing(word for sentence in transcripts(paths, "train") for word in sentence)
    if missing:
        message = f"{len(missing)} words are not in the lexicon: {' '.join(missing[:10])}"
        raise DataError(f"{paths.cuts('train')}: {message}. Add them, or set corpus.unknown_words and redo stage 1.")
    lexicon.save(paths.lang / "lexicon.txt")
    units = OutputUnits(tuple(lexicon.phones), lang.states_per_phone, lang.silence_states)
    units.save(paths.lang / "units.json")
    words_file = paths.lang / "words.txt"
    graph.save_words(words_file, graph.word_symbols(lexicon))
    model, report = _language_model(config, paths, lexicon)
    report |= {"order": model.order, "ngrams": [len(table) for table in model.probabilities]}
    dev = model.perplexity(_map_unknown(transcripts(paths, "dev"), lexicon, lang.unknown_word)[0])
    report |= {"dev_perplexity": round(dev.perplexity, 3), "dev_words": dev.words, "dev_oov_percent": round(100 * dev.oov_rate, 3)}
    _log.info("lexicon: %d words, %d phones, %d output units", len(lexicon.entries), len(lexicon.phones) + 1, units.num_units)
    _log.info(
        "%d-gram (%s): %s n-grams; dev: perplexity %.1f, %.2f %% of %d words unknown",
        model.order, report["smoothing"], "+".join(map(str, report["ngrams"])), dev.perplexity, 100 * dev.oov_rate, dev.words,
    )  # fmt: skip
    transducers = graph.make_transducers(lexicon, units, lang.silence_probability, paths.lang / "lm.arpa", words_file)
    sizes = build_graphs(paths.lang, transducers, backends)
    pronunciations = sum(map(len, lexicon.entries.values()))
    lexicon_size = {"words": len(lexicon.entries), "pronunciations": pronunciations, "phones": len(lexicon.phones) + 1}
    write_json(paths.lang / "report.json", {"lexicon": lexicon_size, "units": units.num_units, "language_model": report, "graphs": sizes})
