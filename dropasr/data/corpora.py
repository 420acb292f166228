"""Stage 1: from a corpus as its publisher lays it out to checked lhotse cuts.

A corpus comes from a recipe of lhotse (`lhotse:NAME`) or from a script (`local/prepare_NAME.py`) that defines

    class PrepareOptions(Options)   # typed; `corpus.options` of the YAML
    def prepare(corpus: CorpusConfig, options: PrepareOptions, folder: Path, nj: int) -> dict[str, tuple[RecordingSet, SupervisionSet]]

with the keys train, dev, test and those of `corpus.extra_tests`. A script may write audio, `lexicon.txt` and `lm_text.txt` into `folder`,
and import modules beside it.
"""

from __future__ import annotations

import gzip
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from dropasr.config import REPOSITORY, Config, CorpusConfig, Options, nearest, parse_options
from dropasr.data import lhotse_recipe
from dropasr.data.audio import read_sphere_by_libsndfile
from dropasr.data.validate import Split, check_split, check_splits, read_words
from dropasr.errors import ConfigError, DataError
from dropasr.files import atomic_path, write_json, write_text
from dropasr.log import get_logger
from dropasr.paths import Paths

_MADE = ("lexicon.txt", "lm_text.txt")
_LOG = get_logger(__name__)


def prepare(config: Config, paths: Paths, nj: int) -> None:
    """Make `paths.cuts(split)` and `manifests/report.json`, and copy the lexicon and language-model text that the corpus makes.

    Raises DataError where the corpus is missing or a check fails, ConfigError for options that the corpus does not have.
    """
    corpus = config.corpus
    folder = paths.corpus.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    for name in _MADE:
        (folder / name).unlink(missing_ok=True)
        (paths.manifests / name).unlink(missing_ok=True)
    if corpus.corpus_dir is not None and not Path(corpus.corpus_dir).expanduser().is_dir():
        raise DataError(
            f"corpus {corpus.name}: corpus.corpus_dir is '{corpus.corpus_dir}', which is no folder (seen from {Path.cwd()}). "
            "Correct --corpus-dir, or leave it out to have the corpus downloaded or made, where that is possible."
        )
    kind, _, recipe = corpus.prepare.partition(":")
    read_sphere_by_libsndfile()
    if kind == "lhotse":
        manifests = lhotse_recipe.load(corpus, parse_corpus_options(corpus), recipe, folder, nj)
    else:
        manifests = load_script(corpus.prepare).prepare(corpus, parse_corpus_options(corpus), folder, nj)
    missing = [name for name in corpus.splits if name not in manifests]
    if missing:
        wanted = ", ".join(corpus.splits)
        raise DataError(f"corpus {corpus.name}: expected the splits {wanted}, found no {missing[0]} in what {corpus.prepare} returned.")
    words = known_words(config, folder)
    splits = []
    for name in corpus.splits:
        recordings, supervisions = manifests[name]
        splits.append(check_split(name, recordings, supervisions, corpus, words, config.lang.unknown_word, nj))
    check_splits(splits, corpus.one_speaker)
    for name in _MADE:
        if (folder / name).exists():
            write_text(paths.manifests / name, (folder / name).read_text(encoding="utf-8"))
    for split in splits:
        _write_cuts(split, paths.cuts(split.name))
    report = _report(corpus, splits, paths.manifests / "lm_text.txt")
    write_json(paths.manifests / "report.json", report)
    _log(report)
    if config.lang.dictionary is not None and corpus.unknown_words != "error":
        _LOG.info(
            "corpus.unknown_words %s changes nothing: lang.dictionary gives every word of train a pronunciation", corpus.unknown_words
        )


def known_words(config: Config, folder: Path) -> set[str] | None:
    """The vocabulary of `lang.lexicon`, or of the lexicon that the corpus made in `folder`.

    None where there is neither, and where stage 3 gives every word a pronunciation (`lang.dictionary`): no word is unknown then.
    """
    if config.lang.dictionary is not None:
        return None
    lexicon = config.lang.lexicon
    if isinstance(lexicon, dict):
        return read_words(lexicon)
    if lexicon is not None:
        return read_words(_find(lexicon))
    return read_words(folder / "lexicon.txt") if (folder / "lexicon.txt").exists() else None


def _find(name: str) -> Path:
    """A path of a configuration: seen from the working directory, or else from the repository."""
    path = Path(name).expanduser()
    return path if path.exists() or path.is_absolute() else REPOSITORY / path


def load_script(name: str) -> ModuleType:
    """Import `local/prepare_NAME.py` by path, once. Raises ConfigError where it is missing or lacks one of its two definitions."""
    path = _find(name).resolve()
    if not path.is_file():
        scripts = [f"local/{other.name}" for other in (REPOSITORY / "local").glob("prepare_*.py")]
        raise ConfigError(f"corpus.prepare: '{name}': expected `lhotse:NAME` or a script, found no such file{nearest(name, scripts)}.")
    module_name = f"dropasr_{path.stem}"
    loaded = sys.modules.get(module_name)
    if loaded is not None and loaded.__file__ == str(path):
        return loaded
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    specification = importlib.util.spec_from_file_location(module_name, path)
    module = importlib.util.module_from_spec(specification)  # type: ignore[arg-type]
    # Registered under its name, so that the processes of a pool find its functions.
    sys.modules[module_name] = module
    try:
        specification.loader.exec_module(module)  # type: ignore[union-attr]
    except BaseException:
        del sys.modules[module_name]
        raise
    for definition in ("PrepareOptions", "prepare"):
        if not hasattr(module, definition):
            raise ConfigError(
                f"{path}: expected a definition of `{definition}`, found none. dropasr/data/corpora.py says what a script defines."
            )
    return module


def parse_corpus_options(corpus: CorpusConfig) -> Options:
    """`corpus.options`, typed by the corpus's own options. Raises ConfigError for an unknown key or a value of the wrong type."""
    kind = lhotse_recipe.LhotseOptions if corpus.prepare.startswith("lhotse:") else load_script(corpus.prepare).PrepareOptions
    return parse_options(kind, corpus.options, f"corpus.options ({corpus.prepare})")


def check_corpus_options(corpus: CorpusConfig) -> None:
    """Raise ConfigError where there is no such recipe or script, or it does not have these options."""
    parse_corpus_options(corpus)
    kind, _, recipe = corpus.prepare.partition(":")
    if kind == "lhotse":
        lhotse_recipe.find(recipe, "prepare")


def _write_cuts(split: Split, path: Path) -> None:
    """Write cuts as lhotse does (JSON lines), with the same bytes for the same cuts."""
    with atomic_path(path) as temporary:
        with open(temporary, "wb") as raw, gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as file:
            for cut in split.cuts:
                file.write((json.dumps(cut.to_dict(), ensure_ascii=False) + "\n").encode("utf-8"))


def _report(corpus: CorpusConfig, splits: list[Split], lm_text: Path) -> dict[str, Any]:
    sentences = {split.name: split.sentences() for split in splits}
    known = set(sentences["train"])
    in_text = set(lm_text.read_text(encoding="utf-8").splitlines()) if lm_text.exists() else set()

    def seen(name: str) -> dict[str, float]:
        texts = sentences[name]
        return {
            "in_train": sum(text in known for text in texts) / len(texts),
            "in_lm_text": sum(text in in_text for text in texts) / len(texts),
        }

    return {
        "corpus": corpus.name,
        "note": corpus.note,
        "one_speaker": corpus.one_speaker,
        "sample_rate": corpus.sample_rate,
        "text": corpus.text.model_dump(mode="json"),
        "hours": round(sum(cut.duration for split in splits for cut in split.cuts) / 3600, 6),
        "splits": {split.name: split.report() for split in splits},
        "vocabulary": len({word for texts in sentences.values() for text in texts for word in text.split()}),
        "test_sentences_seen": seen("test"),
        "extra_test_sentences_seen": {name: seen(name) for name in corpus.extra_tests},
    }


def _log(report: dict[str, Any]) -> None:
    for name, split in report["splits"].items():
        _LOG.info(
            "%-10s %6d utterances, %6.2f hours, %7d words, %4d speakers, %d of %d dropped, %d words mapped",
            name, split["utterances"], split["hours"], split["words"], split["speakers"], len(split["dropped"]), split["seen"],
            sum(split["mapped_words"].values()),
        )  # fmt: skip
        if split["unknown_words"]:
            _LOG.warning(
                "%s: %d words (%d different, such as %s) are not in the lexicon; they stay in the references and count as errors",
                name, sum(split["unknown_words"].values()), len(split["unknown_words"]), next(iter(split["unknown_words"])),
            )  # fmt: skip
    if report["one_speaker"]:
        _LOG.info("%s has one speaker: train and test share it", report["corpus"])
    if report["note"]:
        _LOG.info("%s: %s", report["corpus"], report["note"])
