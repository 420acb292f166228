"""Every option as a typed field with one line of documentation; unknown keys are refused with the nearest match.

A configuration is one YAML of `conf/`, over it `conf/model/NAME.yaml` and `conf/method/NAME.yaml`, over those `--set`.
The sections `model` and `methods` stay plain dictionaries here: each model and method file types its own options, so that
adding one is one file. Nothing in this package imports torch, so that a finished stage costs no start-up time.
"""

from dropasr.config.base import REPOSITORY, Options, nearest, parse_options
from dropasr.config.corpus import CorpusConfig, FeaturesConfig, LangConfig, TextConfig
from dropasr.config.experiment import CTC_OPTIONS, AlignConfig, DecodeConfig, ExperimentConfig, RtfConfig, TrainConfig
from dropasr.config.loading import Config, Row, apply_setting, load_config, read_layers, rows
from dropasr.config.system import has_own_graph, system_folder, system_name, system_slug

__all__ = [
    "CTC_OPTIONS",
    "REPOSITORY",
    "AlignConfig",
    "Config",
    "CorpusConfig",
    "DecodeConfig",
    "ExperimentConfig",
    "FeaturesConfig",
    "LangConfig",
    "Options",
    "Row",
    "RtfConfig",
    "TextConfig",
    "TrainConfig",
    "apply_setting",
    "has_own_graph",
    "load_config",
    "nearest",
    "parse_options",
    "read_layers",
    "rows",
    "system_folder",
    "system_name",
    "system_slug",
]
