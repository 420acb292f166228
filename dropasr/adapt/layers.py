"""Which layers a user's net has, and which of its tensors belong to which: written as a list, or read from an nn.Module.

    layers:
      - linear: net.0                  # tensors net.0.weight and net.0.bias
      - batch_norm: net.1              # also {batch_norm: net.1, eps: 1.0e-5, momentum: 0.1}
      - relu
      - dropout
      - linear: net.4

or `lstm: rnn` (an nn.LSTM of any number of layers, in one direction or both), once or more, and then one `linear`. Layers without tensors
are named alone. The last `linear` makes the outputs, whose units stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Union

from torch import nn

from dropasr.config import nearest
from dropasr.errors import ConfigError
from dropasr.models.stack import ENDS, FUNCTIONS

WITH_TENSORS = ("linear", "batch_norm", "lstm")
IGNORED = ("dropout", "identity", "flatten")
"""Layers that play no part: they do nothing at run time, or nothing to rows."""
KINDS = (*WITH_TENSORS, *dict.fromkeys([*FUNCTIONS, *ENDS]), *IGNORED)
MODULES: dict[type, str] = {
    nn.Linear: "linear",
    nn.BatchNorm1d: "batch_norm",
    nn.LSTM: "lstm",
    nn.ReLU: "relu",
    nn.Sigmoid: "sigmoid",
    nn.Tanh: "tanh",
    nn.LogSoftmax: "log_softmax",
    nn.Softmax: "softmax",
    nn.Dropout: "dropout",
    nn.Identity: "identity",
    nn.Flatten: "flatten",
}


@dataclass(frozen=True)
class Layer:
    """One layer: its kind (KINDS), the prefix of its tensors in the state dict (empty where it has none), numbers of a batch norm."""

    kind: str
    name: str = ""
    eps: float = 1e-5
    momentum: Union[float, None] = 0.1


def parse_layers(entries: Any, where: str) -> list[Layer]:
    """The layers of a list as it stands in YAML or JSON. Raises ConfigError that begins with `where` and the position in the list."""
    if not isinstance(entries, Sequence) or isinstance(entries, str) or not entries:
        raise ConfigError(f"{where}: expected a list of layers, such as [{{linear: net.0}}, relu, {{linear: net.2}}], found {entries!r}.")
    return [_parse_layer(entry, f"{where}[{position}]") for position, entry in enumerate(entries)]


def _parse_layer(entry: Any, where: str) -> Layer:
    if isinstance(entry, Layer):
        return entry
    if isinstance(entry, str):
        entry = {entry: ""}
    if not isinstance(entry, dict) or not entry:
        raise ConfigError(f"{where}: expected a kind of layer, or {{kind: prefix of its tensors}}, found {entry!r}.")
    (kind, name), *rest = entry.items()
    if kind not in KINDS:
        raise ConfigError(f"{where}: there is no kind of layer '{kind}'{nearest(str(kind), list(KINDS))}.")
    if not isinstance(name, str) or (kind in WITH_TENSORS) != bool(name):
        wanted = (
            f"the prefix of its tensors, such as {{{kind}: net.0}}" if kind in WITH_TENSORS else "the kind alone, for it has no tensors"
        )
        raise ConfigError(f"{where} ({kind}): expected {wanted}, found {name!r}.")
    for key, value in rest:
        if kind != "batch_norm" or key not in ("eps", "momentum"):
            known = " (known: eps, momentum)" if kind == "batch_norm" else ""
            raise ConfigError(f"{where} ({kind}): unknown key '{key}'{known}.")
        if not (isinstance(value, (int, float)) or (key == "momentum" and value is None)):
            raise ConfigError(f"{where} ({kind}): {key}: expected a number, found {value!r}.")
    return Layer(kind, name, **dict(rest))


def layers_of(module: nn.Module) -> list[Layer]:
    """The layers of a module, in the order in which it names them, which must be that in which it runs them.

    Raises ConfigError for a module that is none of MODULES, or has an option that the adapter does not know.
    """
    found = []
    for name, part in module.named_modules(remove_duplicate=False):
        if any(True for _ in part.children()):
            own = [key for key, _ in part.named_parameters(recurse=False)]
            if own:
                raise ConfigError(f"{name or 'the net'}: expected parameters in layers alone, found '{own[0]}' in a {type(part).__name__}.")
            continue
        kind = MODULES.get(type(part))
        if kind is None:
            known = ", ".join(sorted(known.__name__ for known in MODULES))
            raise ConfigError(
                f"{name or 'the net'}: expected a layer that is one of {known}, found {type(part).__name__}. "
                "If the net does not run it, or runs it otherwise, say what it runs with layers=[…] (docs/compact-your-own-net.md)."
            )
        _check_options(name or "the net", part)
        numbers = {"eps": part.eps, "momentum": part.momentum} if kind == "batch_norm" else {}
        found.append(Layer(kind, name if kind in WITH_TENSORS else "", **numbers))
    return found


def _check_options(name: str, part: nn.Module) -> None:
    """Raise ConfigError for options of torch's modules that the adapter does not know."""
    wrong = None
    if isinstance(part, nn.BatchNorm1d) and not (part.affine and part.track_running_stats):
        wrong = "affine=True and track_running_stats=True"
    elif isinstance(part, nn.LSTM) and part.proj_size:
        wrong = "proj_size=0"
    elif isinstance(part, nn.LSTM) and not part.bias:
        wrong = "bias=True (biases of 0 are the same net)"
    elif isinstance(part, (nn.Softmax, nn.LogSoftmax)) and part.dim not in (-1, 1):
        wrong = "dim=-1"
    if wrong:
        raise ConfigError(f"{name}: expected a {type(part).__name__} with {wrong}, found {part}.")


def split_end(layers: Sequence[Layer]) -> tuple[list[Layer], Union[str, None]]:
    """The layers that do something, up to the output layer, and what follows that. Raises ConfigError if there is no such pair."""
    active = [layer for layer in layers if layer.kind not in IGNORED]
    last = max((position for position, layer in enumerate(active) if layer.kind == "linear"), default=None)
    if last is None:
        raise ConfigError("layers: expected a linear layer for the outputs, found none.")
    end = [layer.kind for layer in active[last + 1 :]]
    if len(end) > 1 or any(kind not in ENDS for kind in end):
        raise ConfigError(f"layers: behind the last linear layer expected at most one of {', '.join(ENDS)}, found {', '.join(end)}.")
    return active[: last + 1], (end or [None])[0]
