"""vLLM: its command line; flags as in vllm/engine/arg_utils.py and entrypoints' cli_args.py of 0.32."""

import json
from collections.abc import Mapping
from typing import Annotated
from typing import Any
from typing import ClassVar
from typing import Literal

from pydantic import Field

from tuner.serving.models import ServingKnob
from tuner.serving.process import HOST
from tuner.serving.program import Program
from tuner.serving.program import flag


class Vllm(Program):
    """A model on vLLM: `{serve: vllm, model: meta-llama/Llama-3.1-8B-Instruct}`."""

    serve: Literal["vllm"] = "vllm"
    command: tuple[str, ...] = Field(
        default=("vllm", "serve"),
        strict=False,
        min_length=1,
        description="the program, and what stands before its arguments",
    )
    max_num_seqs: ServingKnob[Annotated[int, Field(ge=0)]] = Field(
        default=0, description="calls that are answered at once; 0: as vLLM decides"
    )
    kv_offload_gib: ServingKnob[Annotated[float, Field(ge=0)]] = Field(
        default=0.0, description="memory of the host for keys and values that a GPU drops; 0: none"
    )
    speculative: ServingKnob[Literal["none"] | dict[str, Any]] = Field(
        default="none", description="none, or vLLM's speculative config: {method: ngram, …}"
    )
    grammar: Literal["none", "vllm"] = Field(
        default="vllm", description="whether the engine holds replies to grammars"
    )

    flags: ClassVar[Mapping[str, str]] = {
        "--model": "`model` sets it",
        "--served-model-name": "it is the model's name in the study",
        "--host": f"it is {HOST}",
        "--port": "`port` sets it",
        "--seed": "`seed` sets it",
        "--tensor-parallel-size": "`tensor_parallel` sets it",
        "-tp": "`tensor_parallel` sets it",
        "--max-model-len": "`context` sets it",
        "--enable-prefix-caching": "`prefix_cache` sets it",
        "--no-enable-prefix-caching": "`prefix_cache` sets it",
        "--kv-cache-dtype": "`kv_cache_dtype` sets it",
        "--kv-offloading-size": "`kv_offload_gib` sets it",
        "--quantization": "`quantization` sets it",
        "-q": "`quantization` sets it",
        "--max-num-seqs": "`max_num_seqs` sets it",
        "--speculative-config": "`speculative` sets it",
        "-sc": "`speculative` sets it",
    }
    # The endpoint that resets the prefix cache is one of those for developers. It listens on this machine only.
    variables: ClassVar[Mapping[str, str]] = {"VLLM_SERVER_DEV_MODE": "1"}
    version_paths: ClassVar[tuple[str, ...]] = ("/version",)

    def understood_grammar(self) -> Literal["none", "vllm"]:
        """Vllm's own, unless the study says that this engine holds to none."""
        return self.grammar

    def command_line(self, name: str, model: str, port: int) -> list[str]:
        """`vllm serve MODEL …`; /metrics is always there."""
        config = None if self.speculative == "none" else json.dumps(self.speculative)
        return [
            *self.command,
            model,
            *("--served-model-name", name),
            *("--host", HOST, "--port", str(port)),
            *("--seed", str(self.seed)),
            *("--tensor-parallel-size", str(self.tensor_parallel)),
            "--enable-prefix-caching" if self.prefix_cache else "--no-enable-prefix-caching",
            "--enable-prompt-tokens-details",
            "--disable-uvicorn-access-log",  # a line per call would fill the disk
            *flag("--max-model-len", self.context, unless=0),
            *flag("--kv-cache-dtype", self.kv_cache_dtype, unless="auto"),
            *flag("--kv-offloading-size", self.kv_offload_gib, unless=0),
            *flag("--quantization", self.quantization, unless="auto"),
            *flag("--max-num-seqs", self.max_num_seqs, unless=0),
            *flag("--speculative-config", config, unless=None),
            *self.arguments,
        ]
