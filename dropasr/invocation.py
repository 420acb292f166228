"""What a command line means: its configuration, with the paths in it made absolute, and its folders."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from dropasr.options import REPOSITORY

if TYPE_CHECKING:
    from dropasr.config import Config
    from dropasr.options import Invocation
    from dropasr.paths import Paths

PATH_KEYS = ("corpus.corpus_dir", "lang.lexicon", "lang.arpa", "lang.text")
"""Configuration values that are paths: relative to the caller's folder in `--set`, to the repository in a YAML."""
PATH_OPTIONS = {"local/prepare_kaldi_dir.py": ("train", "dev", "test")}
"""The same of `corpus.options`, by prepare script; where `corpus.corpus_dir` is given, they are relative to that instead."""
CORPUS_KEYS = ("lang.dictionary", "lang.texts")
"""Paths, or lists of them, that a YAML gives relative to the corpus folder (or the folder around it), else to the repository."""


def _absolute(base: Path, value: str) -> str:
    return str(base / os.path.expanduser(value))


def _beside_corpus(value: str, corpus_dir: str | None) -> str:
    """A path of a YAML that is relative to the corpus folder, to the folder around it, or to the repository: where it exists."""
    if corpus_dir is not None:
        for folder in (Path(corpus_dir), Path(corpus_dir).parent):
            if (folder / os.path.expanduser(value)).exists():
                return str(folder / os.path.expanduser(value))
    return _absolute(REPOSITORY, value)


def _with_corpus_files(config: Config, invocation: Invocation, typed: set[str]) -> Config:
    """The configuration with the paths of CORPUS_KEYS made absolute; the name of a pip package is none. `typed`: keys given by --set."""
    from dropasr.lang.dictionary import PACKAGE

    def absolute(name: str, key: str) -> str:
        if name == PACKAGE:
            return name
        return _absolute(invocation.base, name) if key in typed else _beside_corpus(name, config.corpus.corpus_dir)

    changed = {}
    for path_key in CORPUS_KEYS:
        key = path_key.rpartition(".")[2]
        value = getattr(config.lang, key)
        if value:
            changed[key] = absolute(value, path_key) if isinstance(value, str) else [absolute(name, path_key) for name in value]
    return config.model_copy(update={"lang": config.lang.model_copy(update=changed)})


def load(invocation: Invocation) -> tuple[Config, Paths]:
    """The configuration and the folders of a command line; raises ConfigError."""
    from dropasr.config import load_config, system_folder
    from dropasr.paths import Paths

    settings = []
    for setting in invocation.settings:
        key, _, value = setting.partition("=")
        is_path = key in PATH_KEYS and value and value not in ("null", "~") and not value.startswith("{")
        settings.append(f"{key}={_absolute(invocation.base, value)}" if is_path else setting)
    corpus_dir = str(invocation.corpus_dir) if invocation.corpus_dir else None
    config = load_config(invocation.conf, invocation.model, invocation.method, corpus_dir, settings, invocation.overlays)
    for path_key in PATH_KEYS:
        section, _, key = path_key.partition(".")
        value = getattr(getattr(config, section), key)
        if isinstance(value, str):
            changed = getattr(config, section).model_copy(update={key: _absolute(REPOSITORY, value)})
            config = config.model_copy(update={section: changed})
    typed = {setting.partition("=")[0] for setting in invocation.settings}
    config = _with_corpus_files(config, invocation, typed)
    if config.corpus.corpus_dir is None:
        found = dict(config.corpus.options)
        for key in PATH_OPTIONS.get(config.corpus.prepare, ()):
            if isinstance(found.get(key), str):
                found[key] = _absolute(invocation.base if f"corpus.options.{key}" in typed else REPOSITORY, found[key])
        config = config.model_copy(update={"corpus": config.corpus.model_copy(update={"options": found})})
    return config, Paths(invocation.data_dir, invocation.exp_dir, str(config.model["name"]), invocation.seed, system_folder(config))


def check_components(config: Config, row: str | None = None) -> None:
    """Check what only corpora, models, methods and the search backend know: their options, and which rows may stand together.

    `row`: a name that must be that of one. Raises ConfigError. Imports torch.
    """
    from dropasr.data.corpora import check_corpus_options
    from dropasr.data.features import make_extractor
    from dropasr.decoding.search import need_lattices
    from dropasr.models import model_options
    from dropasr.stamps import resolved_backend
    from dropasr.training.row_checks import check_rows
    from dropasr.training.rows import row_by_name

    check_corpus_options(config.corpus)
    make_extractor(config.features, config.corpus.sample_rate)
    model_options(config.model)
    check_rows(config)
    if row is not None:
        row_by_name(config, row)
    backend = resolved_backend(config)
    if config.needs_lattices and backend == "kaldi":
        raise need_lattices(backend, config.needs_lattices)
