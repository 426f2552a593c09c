"""How many bytes the keys and values of a prompt take, from what a model's config says and how long its calls were.

Apart from what servers tell: this is arithmetic on a model's shape. It turns a server's tokens into bytes, and where a
server does not tell how full its cache is, as llama.cpp does not, it stands in for it, marked as analytic.

bytes per token = Σ over layers of key-value heads × (head size of keys + of values) × bytes per number
"""

import json
import math
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any

from tuner.measure.server.reading import ServerReading
from tuner.records import ExampleRun

if TYPE_CHECKING:
    from gguf import GGUFReader

BYTES: Mapping[str, float] = {
    "float32": 4,
    "f32": 4,
    "float16": 2,
    "f16": 2,
    "half": 2,
    "bfloat16": 2,
    "bf16": 2,
    "fp8": 1,
    "fp8_e4m3": 1,
    "fp8_e5m2": 1,
    "int8": 1,
    # ggml's blocks of 32 numbers, with their scales: 34, 24, 22, 20 and 18 bytes
    "q8_0": 34 / 32,
    "q5_1": 24 / 32,
    "q5_0": 22 / 32,
    "q4_1": 20 / 32,
    "q4_0": 18 / 32,
    "iq4_nl": 18 / 32,
}
"""What a number takes, by the type of the KV cache as engines and configs call it."""

ATTENTION = ("full_attention", "sliding_attention", "chunked_attention")
"""Kinds of layers that keep keys and values of each token; linear attention and state spaces keep none."""


def kv_bytes_per_token(config: Mapping[str, Any], *, kv_dtype: str | None = None) -> float | None:
    """Bytes that the keys and values of one token take in all layers; None where the config does not say enough.

    `config` is a model's config.json, or what `load_model_config` makes of a .gguf file. `kv_dtype` is the cache's
    type where it is not the model's: fp8, q8_0, … A model with multi-head latent attention (DeepSeek-V2,
    arXiv:2405.04434, section 2.1) keeps one compressed vector and one rotated key a layer, for all heads. See
    `kv_note` for where this is not all.
    """
    config = _of_text(config)
    number_bytes = _number_bytes(config, kv_dtype)
    numbers = _numbers_per_token(config)
    return None if number_bytes is None or numbers is None else numbers * number_bytes


def kv_note(config: Mapping[str, Any]) -> str | None:
    """In what the bytes per token are not the whole truth; None where they are."""
    config = _of_text(config)
    layers, sliding, window = _layers(config), _sliding(config), config.get("sliding_window")
    if not sliding or not layers:
        return None
    return (
        f"up to {sliding} of {layers} layers look back {window} tokens only: for longer prompts, the figure "
        "is what an engine holds that does not free what lies before"
    )


def load_model_config(source: str | Path) -> dict[str, Any] | None:
    """A model's config: of a folder, of a .gguf file, or of a Hugging Face name that is in this machine's cache.

    None where there is none, or nothing here can read it (a .gguf needs the package gguf, and some seconds).
    Nothing is fetched.
    """
    path = Path(source)
    if path.suffix == ".gguf":
        return _read_gguf(path) if path.is_file() else None
    if path.is_dir():
        return _read_json(path / "config.json")
    found = _in_hub_cache(str(source))
    return None if found is None else _read_json(found)


def analytic_kv(
    runs: Iterable[ExampleRun],
    bytes_per_token: float,
    *,
    model: str | None = None,
    block_tokens: int | None = None,
) -> tuple[float, float] | None:
    """Average over time and maximum of the KV bytes that the calls of one window held; None where a call's tokens are unknown.

    Of all calls, or of those to the `model` that their spans name.

    A call in flight holds its prompt, and of its reply as much as of its time has passed. The window reaches from
    its opening to the end of the last run. With `block_tokens`, each call holds whole blocks. What calls share of a
    prefix is counted for each: on servers that share it, this is an upper bound. Raises ValueError for runs of
    several windows.
    """
    runs = list(runs)
    if len({run.window for run in runs}) > 1:
        raise ValueError("runs of several windows do not share a time axis")
    calls = _calls(runs, model)
    seconds = max((run.started_s + run.latency_s for run in runs), default=0.0)
    if calls is None or not seconds:
        return None
    held = _Staircase(block_tokens) if block_tokens else _Line()
    area = sum(held.area(call) for call in calls)
    peak = _peak(calls, held)
    return area / seconds * bytes_per_token, peak * bytes_per_token


def with_analytic_kv(
    reading: ServerReading,
    runs: Iterable[ExampleRun],
    bytes_per_token: float | None,
    *,
    model: str | None = None,
    block_tokens: int | None = None,
) -> ServerReading:
    """The reading, with what `analytic_kv` finds where the server did not tell how many tokens it held; marked so."""
    if reading.kv_tokens_mean is not None:
        return reading
    tokens = analytic_kv(runs, 1.0, model=model, block_tokens=block_tokens)
    if tokens is None:
        return reading
    mean, peak = tokens
    return replace(
        reading,
        kv_tokens_mean=mean,
        kv_tokens_max=peak,
        kv_bytes_mean=None if bytes_per_token is None else mean * bytes_per_token,
        kv_bytes_max=None if bytes_per_token is None else peak * bytes_per_token,
        kv_source="analytic",
    )


Call = tuple[float, float, float, float]
"""Seconds at start and end; tokens held then."""


class _Line:
    """Tokens of a call whose cache grows token by token."""

    def area(self, call: Call) -> float:
        """Token-seconds."""
        start_s, end_s, first, last = call
        return (first + last) / 2 * (end_s - start_s)

    def at(self, call: Call, t_s: float) -> float:
        """Tokens held at a moment of the call."""
        start_s, end_s, first, last = call
        return first + (last - first) * (t_s - start_s) / (end_s - start_s)


class _Staircase(_Line):
    """Tokens of a call whose cache grows by blocks."""

    def __init__(self, block: int) -> None:
        self._block = block

    def area(self, call: Call) -> float:
        """Token-seconds."""
        start_s, end_s, first, last = call
        if last == first:
            return self._up(first) * (end_s - start_s)
        return (self._integral(last) - self._integral(first)) / (last - first) * (end_s - start_s)

    def at(self, call: Call, t_s: float) -> float:
        """Tokens of the blocks held at a moment of the call."""
        return self._up(super().at(call, t_s))

    def _up(self, tokens: float) -> float:
        return math.ceil(tokens / self._block) * self._block

    def _integral(self, tokens: float) -> float:
        """∫ from 0 to `tokens` of what is held."""
        whole, rest = divmod(tokens, self._block)
        return self._block**2 * whole * (whole + 1) / 2 + rest * self._block * (whole + 1)


def _calls(runs: Sequence[ExampleRun], model: str | None) -> list[Call] | None:
    calls = []
    for run in runs:
        for span in run.new_spans:
            # A try that nothing came of, as where the server was not reached, has no tokens to report.
            if span.kind != "llm" or (span.error is not None and not span.output):
                continue
            if model is not None and span.name != model:
                continue
            if span.tokens_in is None or span.tokens_out is None:
                if (
                    run.edge
                ):  # an extra question's last call, broken off when the measured ones were answered
                    continue
                return None
            start_s, end_s = run.started_s + span.start_s, run.started_s + span.end_s
            if end_s > start_s:
                tokens = float(span.tokens_in)
                calls.append((start_s, end_s, tokens, tokens + span.tokens_out))
    return calls


def _peak(calls: Sequence[Call], held: _Line) -> float:
    """The most that was held at once: just before a call ends, since between ends it only grows."""
    peak = 0.0
    open_calls: list[Call] = []
    waiting = sorted(calls)
    begun = 0
    for end_s in sorted({call[1] for call in calls}):
        while begun < len(waiting) and waiting[begun][0] < end_s:
            open_calls.append(waiting[begun])
            begun += 1
        open_calls = [call for call in open_calls if call[1] >= end_s]
        peak = max(peak, sum(held.at(call, end_s) for call in open_calls))
    return peak


def _of_text(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part that describes the language model, where a config describes others as well."""
    nested = config.get("text_config")
    if not isinstance(nested, Mapping) or "num_hidden_layers" in config:
        return config
    return {"dtype": config.get("dtype"), "torch_dtype": config.get("torch_dtype"), **nested}


def _number_bytes(config: Mapping[str, Any], kv_dtype: str | None) -> float | None:
    if kv_dtype in (None, "auto"):
        kv_dtype = str(config.get("dtype") or config.get("torch_dtype") or "bfloat16")
    return BYTES.get(str(kv_dtype).removeprefix("torch."))


def _numbers_per_token(config: Mapping[str, Any]) -> float | None:
    layers = _layers(config)
    if layers is None:
        return None
    if config.get("kv_lora_rank"):
        return float(layers * (config["kv_lora_rank"] + config.get("qk_rope_head_dim", 0)))
    heads = config.get("num_attention_heads")
    kv_heads = config.get("num_key_value_heads") or heads
    head_k = config.get("head_dim") or _per_head(config.get("hidden_size"), heads)
    if kv_heads is None or head_k is None:
        return None
    head_v = config.get("v_head_dim") or head_k
    # Models whose layers differ list a number of heads for each.
    in_all = sum(kv_heads) if isinstance(kv_heads, Sequence) else layers * kv_heads
    return float(in_all * (head_k + head_v))


def _per_head(hidden: int | None, heads: int | None) -> int | None:
    return hidden // heads if hidden and isinstance(heads, int) else None


def _layers(config: Mapping[str, Any]) -> int | None:
    """How many layers keep keys and values."""
    kinds = config.get("layer_types")
    if kinds:
        return sum(kind in ATTENTION for kind in kinds)
    layers = config.get("num_hidden_layers")
    return layers if isinstance(layers, int) else None


def _sliding(config: Mapping[str, Any]) -> int:
    """How many layers look back a window only."""
    kinds = config.get("layer_types")
    if kinds:
        return sum(kind == "sliding_attention" for kind in kinds)
    layers = _layers(config)
    if not layers or not config.get("sliding_window") or config.get("use_sliding_window") is False:
        return 0
    pattern = config.get("sliding_window_pattern")  # every so many layers one that looks at all
    return layers - layers // pattern if isinstance(pattern, int) and pattern > 1 else layers


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _in_hub_cache(name: str) -> Path | None:
    try:
        from huggingface_hub import try_to_load_from_cache
        from huggingface_hub.errors import HFValidationError
    except ImportError:
        return None
    try:
        found = try_to_load_from_cache(name, "config.json")
    except HFValidationError:
        return None
    return Path(found) if isinstance(found, str) else None


def _read_gguf(path: Path) -> dict[str, Any] | None:
    """The shape in a .gguf file's header under the names of config.json."""
    try:
        from gguf import GGUFReader
    except ImportError:
        return None
    try:
        reader = GGUFReader(path)
    except (OSError, ValueError):
        return None
    kind = _field(reader, "general.architecture")
    names = {
        "num_hidden_layers": "block_count",
        "hidden_size": "embedding_length",
        "num_attention_heads": "attention.head_count",
        "num_key_value_heads": "attention.head_count_kv",
        "head_dim": "attention.key_length",
        "v_head_dim": "attention.value_length",
        "kv_lora_rank": "attention.kv_lora_rank",
        "qk_rope_head_dim": "rope.dimension_count",
        "sliding_window": "attention.sliding_window",
    }
    found = {name: _field(reader, f"{kind}.{key}") for name, key in names.items()}
    # Whatever the weights are, llama.cpp keeps keys and values as f16 unless it is told otherwise.
    return {"dtype": "f16", **{name: value for name, value in found.items() if value is not None}}


def _field(reader: "GGUFReader", key: str) -> Any:
    field = reader.get_field(key)
    return None if field is None else field.contents()
