"""A whole configuration: its sections, the rows it makes, and how it is read from YAML files and `--set`."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import model_validator

from dropasr.config.base import REPOSITORY, Options, nearest, parse_options
from dropasr.config.corpus import CorpusConfig, FeaturesConfig, LangConfig
from dropasr.config.experiment import AlignConfig, DecodeConfig, ExperimentConfig, RtfConfig, TrainConfig
from dropasr.errors import ConfigError


class Config(Options):
    """One experiment."""

    corpus: CorpusConfig
    """Recordings and transcripts."""
    features: FeaturesConfig = FeaturesConfig()
    """Log-mel filterbanks."""
    lang: LangConfig = LangConfig()
    """Lexicon, n-gram, output units."""
    align: AlignConfig = AlignConfig()
    """Flat start."""
    model: dict[str, Any] = {}
    """`name` of a file of dropasr/models, and its options."""
    methods: dict[str, dict[str, Any]] = {}
    """Options of the methods named in `experiment`; `method` names the file of dropasr/methods."""
    experiment: ExperimentConfig = ExperimentConfig()
    """Rows of the table."""
    train: TrainConfig = TrainConfig()
    """Training."""
    decode: DecodeConfig = DecodeConfig()
    """Search."""
    rtf: RtfConfig = RtfConfig()
    """Timing."""

    @model_validator(mode="after")
    def _check(self) -> Config:
        if (self.train.criterion == "ctc") != (self.lang.units != "phones"):
            fits = "chars or bpe" if self.train.criterion == "ctc" else "phones (or train.criterion ctc)"
            raise ValueError(f"train.criterion {self.train.criterion} needs lang.units {fits}, found {self.lang.units}")
        self._check_rescoring()
        if self.decode.frame_skip > 1 and self.train.criterion == "ctc":
            raise ValueError("decode.frame_skip: nets trained with CTC put a token on one frame, which may be a skipped one; set it to 1")
        if self.decode.backend == "kaldi" and self.needs_lattices:
            raise ValueError(
                f"{self.needs_lattices}: kaldi-decoder makes no lattices, which it needs; leave it unset, or set decode.backend k2"
            )
        return self

    def _check_rescoring(self) -> None:
        if self.decode.rescore == "none":
            return
        if not self.lang.rescore:
            raise ValueError("decode.rescore: it needs the larger language model that lang.rescore keeps; set lang.rescore true, too")
        if self.train.criterion == "ctc" and self.decode.ctc != "hlg":
            raise ValueError(f"decode.rescore: decode.ctc {self.decode.ctc} has no language model to replace; set decode.ctc hlg")

    @property
    def needs_lattices(self) -> str:
        """The option that only a search with lattices (k2) can follow; empty where there is none."""
        decode, ctc = self.decode, self.train.criterion == "ctc"
        if decode.rescore != "none":
            return "decode.rescore"
        if ctc and decode.ctc != "hlg":
            return ""
        plain = (decode.lm_scales, decode.insertion_penalties) == ([1.0], [0.0])
        return "" if plain else "decode.lm_scales and decode.insertion_penalties"

    @property
    def scales(self) -> list[float]:
        """Acoustic scales tried on dev with the criterion in use, rising.

        With the criterion `frames` they are given for a search at every frame; one at every third has a third of the frames to go by.
        """
        if self.train.criterion == "frames":
            return sorted({float(f"{scale * self.train.frame_subsampling:.4g}") for scale in self.decode.acoustic_scales})
        return sorted(set(self.decode.ctc_scales)) if self.decode.ctc == "hlg" else [1.0]


@dataclass(frozen=True)
class Row:
    """One net of the table: `name` is also its folder."""

    name: str
    method: str
    kind: Literal["large", "small", "compact"]
    budget: float
    """Share of the large net's multiply-adds to reach; 0.0: no budget, the size is as learned (`controller: none`)."""


def rows(config: Config) -> list[Row]:
    """The nets that an experiment trains, the large ones first; a method that meets no budget makes one net, not one per budget."""
    experiment = config.experiment
    free = [method for method in experiment.compact if config.methods.get(method, {}).get("controller") == "none"]
    result = [Row(method, method, "large", 1.0) for method in experiment.large]
    for budget in experiment.budgets:
        result += [Row(f"small_{method}@{budget:g}", method, "small", budget) for method in experiment.small]
        result += [Row(f"{method}@{budget:g}", method, "compact", budget) for method in experiment.compact if method not in free]
    return result + [Row(method, method, "compact", 0.0) for method in free]


def _without_sharing(value: Any) -> Any:
    """A copy in which every mention of a YAML anchor is a mapping or list of its own, so that changing one leaves the others."""
    if isinstance(value, dict):
        return {key: _without_sharing(item) for key, item in value.items()}
    return [_without_sharing(item) for item in value] if isinstance(value, list) else value


class _UniqueKeys(yaml.SafeLoader):
    """Refuses a mapping that has one key twice, of which YAML would keep the last without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if key.tag != "tag:yaml.org,2002:merge" and key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key '{key.value}' stands twice; put both together", key.start_mark
                )
            seen.add(key.value if isinstance(key.value, str) else id(key))
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read one YAML file whose top level is a mapping."""
    try:
        value = _without_sharing(yaml.load(path.read_text(encoding="utf-8"), _UniqueKeys))
    except FileNotFoundError:
        siblings = [other.stem for other in path.parent.glob("*.yaml")]
        raise ConfigError(f"{path}: no such configuration{nearest(path.stem, siblings)}.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}.") from None
    except RecursionError:
        raise ConfigError(f"{path}: expected values that end, found an anchor that holds itself.") from None
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: expected 'section: …' lines, found {type(value).__name__}.")
    return value


def _check_sections(path: Path, values: dict[str, Any]) -> None:
    """Refuse a section of a configuration that is no mapping; an empty one becomes an empty mapping."""
    for key, value in values.items():
        if value is None:
            values[key] = {}
        elif not isinstance(value, dict):
            example = "name: lstm" if key == "model" else "key: value"
            raise ConfigError(f"{path}: {key}: expected a section with lines such as '{example}', found {value!r}.")


def _over(values: dict[str, Any], below: dict[str, Any]) -> dict[str, Any]:
    """`values` laid over `below`: mappings key by key, anything else replaced."""
    result = dict(below)
    for key, value in values.items():
        other = result.get(key)
        result[key] = _over(value, other) if isinstance(value, dict) and isinstance(other, dict) else value
    return result


def _layers(path: Path, above: tuple[Path, ...] = ()) -> list[tuple[Path, dict[str, Any]]]:
    """The file after the one that its key `base` names, and after that one's base."""
    if path in above:
        raise ConfigError(f"{path}: 'base' leads back to this file ({' -> '.join(str(file.name) for file in (*above, path))}).")
    values = read_yaml(path)
    if "base" not in values:
        return [(path, values)]
    name = values.pop("base")
    if not isinstance(name, str) or not name.endswith(".yaml"):
        raise ConfigError(f"{path}: base: expected the name of a YAML file in {path.parent}, found {name!r}.")
    return [*_layers(path.parent / name, (*above, path)), (path, values)]


def read_layers(path: Path) -> dict[str, Any]:
    """Read a configuration laid over the file of the same folder that its key `base` names, and over that one's base.

    Raises ConfigError where a file is missing, is no mapping, or is its own base.
    """
    return functools.reduce(lambda below, layer: _over(layer[1], below), _layers(path), {})


def apply_setting(values: dict[str, Any], setting: str) -> None:
    """Apply one `section.key=value` (the value is read as YAML) to a nested dictionary, in place."""
    key, separator, text = setting.partition("=")
    parts = key.split(".")
    if not separator or len(parts) < 2 or not all(parts):
        raise ConfigError(f"--set {setting}: expected section.key=value, such as --set train.epochs=5.")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {setting}: the value is not valid YAML: {' '.join(str(error).split())}.") from None
    for part in parts[:-1]:
        below = values.setdefault(part, {})
        if not isinstance(below, dict):
            raise ConfigError(f"--set {setting}: '{part}' is a value, not a section.")
        values = below
    values[parts[-1]] = value


def _component_file(folder: Path, kind: str, name: str) -> Path:
    path = folder / kind / f"{name}.yaml"
    return path if path.exists() else REPOSITORY / "conf" / kind / f"{name}.yaml"


def _component(folder: Path, kind: str, name: str, overrides: dict[str, Any]) -> dict[str, Any]:
    return {**read_layers(_component_file(folder, kind, name)), **overrides}


def _with_model(values: dict[str, Any], own: dict[str, Any], folder: Path, name: str, where: str | Path) -> dict[str, Any]:
    """The sections with what `own` has for the model, and before it for its bases, over them; the model's file has been read before."""
    path = _component_file(folder, "model", name)
    names = [name]
    while "base" in (file := read_yaml(path)):
        path = path.parent / file["base"]
        names.insert(0, path.stem)
    known = [file.stem for place in (folder, REPOSITORY / "conf") for file in (place / "model").glob("*.yaml")]
    for key, sections in own.items():
        if key not in known:
            raise ConfigError(f"{where}: models.{key}: there is no conf/model/{key}.yaml{nearest(key, known)}.")
        if not isinstance(sections, dict) or {"corpus", "models"} & set(sections):
            raise ConfigError(
                f"{where}: models.{key}: expected sections such as train and decode (not corpus, not models), found {sections!r}."
            )
    for key in names:
        values = _over(own.get(key) or {}, values)
    return values


def load_config(
    path: str | Path,
    model: str | None = None,
    method: str | None = None,
    corpus_dir: str | None = None,
    settings: list[str] | None = None,
    overlays: Sequence[str | Path] = (),
) -> Config:
    """Read `conf/X.yaml` over its `base`, with the model and method files it names, then apply command-line options.

    The files of `overlays` lie over it, as if the first had it as its `base`, and each the one before.

    The model's file may have sections under `defaults`, which lie below those of the configuration, and the configuration sections under
    `models.NAME`, which lie over its others where that model is trained, or one that is based on it. What a file says lies over both of
    its `base`, and what a file of `overlays` says over both of all before it.

    `model` replaces the model of the file, `method` the list `experiment.compact`, `corpus_dir` the folder of the corpus.
    Raises ConfigError naming the file or option, the key, and the nearest valid one.
    """
    path = Path(path)
    layers = [layer for file in (path, *overlays) for layer in _layers(Path(file))]
    values: dict[str, Any] = {}
    for source, sections in layers:
        _check_sections(source, sections)
        values = _over(sections, values)
    if model is not None and (values.get("model") or {}).get("name", "feedforward") != model:
        # The options of another model go; those of --set are meant for this one.
        for _, sections in layers:
            sections.pop("model", None)
    named: dict[str, Any] = {"model": dict(values.get("model") or {})}
    for setting in settings or []:
        apply_setting(named, setting)
    name = model or named["model"].get("name", "feedforward")
    model_file = _component_file(path.parent, "model", name)
    options = read_layers(model_file)
    values = options.pop("defaults", None) or {}
    if not isinstance(values, dict):
        raise ConfigError(f"{model_file}: defaults: expected sections such as train and decode, found {values!r}.")
    for source, sections in (*layers, ("--set", {"models": named.get("models")})):
        own = sections.pop("models", None) or {}
        values = _with_model(_over(sections, values), own, path.parent, name, source)
    for setting in settings or []:
        apply_setting(values, setting)
    values.pop("models", None)
    if corpus_dir is not None:
        values.setdefault("corpus", {})["corpus_dir"] = corpus_dir
    if method is not None:
        values.setdefault("experiment", {})["compact"] = [method]
    values["model"] = {**options, **(values.get("model") or {}), "name": name}
    where = f"{path}{''.join(f' with {overlay}' for overlay in overlays)}{' with --set ' + ' '.join(settings) if settings else ''}"
    config = parse_options(Config, values, where)
    experiment = config.experiment
    wanted = dict.fromkeys([*experiment.large, *experiment.small, *experiment.compact])
    known = {file.stem for folder in (path.parent, REPOSITORY / "conf") for file in (folder / "method").glob("*.yaml")}
    unknown = [key for key in config.methods if key not in known]
    if unknown:
        raise ConfigError(f"{where}: methods.{unknown[0]}: there is no conf/method/{unknown[0]}.yaml{nearest(unknown[0], list(known))}.")
    methods = {key: {"method": key, **_component(path.parent, "method", key, config.methods.get(key, {}))} for key in wanted}
    return config.model_copy(update={"methods": methods})
