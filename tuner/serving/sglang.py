"""SGLang: its command line; flags as in sglang/srt/server_args.py and arg_groups/fields of 0.5."""

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


class Sglang(Program):
    """A model on SGLang: `{serve: sglang, model: meta-llama/Llama-3.1-8B-Instruct}`."""

    serve: Literal["sglang"] = "sglang"
    command: tuple[str, ...] = Field(
        default=("python3", "-m", "sglang.launch_server"),
        strict=False,
        min_length=1,
        description="the program, and what stands before its arguments",
    )
    max_running_requests: ServingKnob[Annotated[int, Field(ge=0)]] = Field(
        default=0, description="calls that are answered at once; 0: as SGLang decides"
    )
    hicache_ratio: ServingKnob[Annotated[float, Field(ge=0)]] = Field(
        default=0.0,
        description="the host's memory for keys and values, as a multiple of the GPU's; 0: none",
    )
    hicache_size_gb: ServingKnob[Annotated[int, Field(ge=0)]] = Field(
        default=0, description="the same in gigabytes; stands before the ratio; 0: none"
    )
    speculative: ServingKnob[Literal["none"] | dict[str, str | int | float]] = Field(
        default="none",
        description="none, or what follows --speculative-: {algorithm: EAGLE3, draft-model-path: …}",
    )

    flags: ClassVar[Mapping[str, str]] = {
        "--model-path": "`model` sets it",
        "--model": "`model` sets it",
        "--served-model-name": "it is the model's name in the study",
        "--host": f"it is {HOST}",
        "--port": "`port` sets it",
        "--random-seed": "`seed` sets it",
        "--tp-size": "`tensor_parallel` sets it",
        "--tensor-parallel-size": "`tensor_parallel` sets it",
        "--context-length": "`context` sets it",
        "--disable-radix-cache": "`prefix_cache` sets it",
        "--kv-cache-dtype": "`kv_cache_dtype` sets it",
        "--quantization": "`quantization` sets it",
        "--max-running-requests": "`max_running_requests` sets it",
        "--enable-hierarchical-cache": "`hicache_ratio` or `hicache_size_gb` sets it",
        "--hicache-ratio": "`hicache_ratio` sets it",
        "--hicache-size": "`hicache_size_gb` sets it",
        "--speculative-algorithm": "`speculative` sets it",
    }
    version_paths: ClassVar[tuple[str, ...]] = ("/server_info", "/get_server_info")

    def command_line(self, name: str, model: str, port: int) -> list[str]:
        """`python3 -m sglang.launch_server --model-path MODEL …`."""
        tiers = [
            *flag("--hicache-ratio", self.hicache_ratio, unless=0),
            *flag("--hicache-size", self.hicache_size_gb, unless=0),
        ]
        drafts: dict[str, Any] = {} if isinstance(self.speculative, str) else dict(self.speculative)  # type: ignore[arg-type]
        return [
            *self.command,
            *("--model-path", model),
            *("--served-model-name", name),
            *("--host", HOST, "--port", str(port)),
            *("--random-seed", str(self.seed)),
            *("--tensor-parallel-size", str(self.tensor_parallel)),
            *([] if self.prefix_cache else ["--disable-radix-cache"]),
            "--enable-metrics",
            "--enable-cache-report",
            *("--log-level-http", "warning"),  # a line per call would fill the disk
            *flag("--context-length", self.context, unless=0),
            *flag("--kv-cache-dtype", self.kv_cache_dtype, unless="auto"),
            *(["--enable-hierarchical-cache", *tiers] if tiers else []),
            *flag("--quantization", self.quantization, unless="auto"),
            *flag("--max-running-requests", self.max_running_requests, unless=0),
            *(
                part
                for key, value in drafts.items()
                for part in (f"--speculative-{key.replace('_', '-')}", str(value))
            ),
            *self.arguments,
        ]
