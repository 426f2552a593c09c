"""Energy that a TensorRT-LLM server tells of its own GPUs, wherever it runs.

`GET /energy_metrics` of trtllm-serve, with `enable_energy_metrics: true` in its configuration file (1.3 and later):
{"total_energy_j": joules since it started, "query_time": its own clock}. Says nothing of which GPUs, and nothing of power.
"""

import json
import math
import time
from pathlib import Path

from pydantic import BaseModel
from pydantic import ConfigDict
from pydantic import Field

from tuner.measure.count import Count
from tuner.measure.count import CountError
from tuner.measure.latest import Latest
from tuner.measure.latest import ReplyError
from tuner.measure.meter import Meter
from tuner.measure.meter import MeterKind
from tuner.measure.meter import Sample
from workflows.config import Address

PERIOD_S = 0.4
"""Each reply costs the server a look at every GPU, and us a millisecond; still often enough to see the server idle."""

COUNTER_TICK_S = 0.1
"""The server sums up the driver's counters, the slowest of which move so often."""

STUCK_S = 3.0


class TensorRtLlm(BaseModel):
    """Where the server tells its energy."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    url: Address = Field(
        pattern=r"^https?://[^/\s]+", description="http://HOST:8000/energy_metrics, not under /v1"
    )


class TensorRtLlmSpec(MeterKind):
    """What trtllm-serve tells: `tensorrt_llm: {url: "http://gpu1:8000/energy_metrics"}`."""

    tensorrt_llm: TensorRtLlm

    def open(self, *, pid: int | None, base: Path) -> Meter:
        """A meter of the server's GPUs. Raises UserError where it does not tell."""
        return TensorRtLlmMeter(self.tensorrt_llm.url)


class TensorRtLlmMeter:
    """The GPUs of one server, as it counts them. Raises UserError where it does not."""

    source = "trtllm"
    tick_s = COUNTER_TICK_S + PERIOD_S
    devices = ()

    def __init__(self, url: str) -> None:
        # It takes the first GPUs of its host whatever CUDA_VISIBLE_DEVICES says, and one host for all.
        self.scope = (
            f"GPUs of the server at {url.split('/')[2]} as it counts them: the first of its host, as many as its world "
            "size; over several hosts, scaled up from one"
        )
        self._latest = Latest(
            url,
            _parse,
            period_s=PERIOD_S,
            meter="tensorrt_llm",
            hint="trtllm-serve 1.3 and later tell it with `enable_energy_metrics: true` in the file given as --config",
        )
        self._count = Count(stuck_s=STUCK_S)

    def read(self) -> Sample:
        """Joules since the server started."""
        now_s = time.perf_counter()
        reply = self._latest.reply(now_s)
        if reply.said is None:
            return Sample(now_s, None, reply.problem)
        try:
            return Sample(now_s, self._count.believed(reply.said, now_s))
        except CountError as error:
            return Sample(now_s, None, f"the server's energy {error}")


def _parse(text: str) -> float:
    """The joules of a reply."""
    try:
        joules = float(json.loads(text)["total_energy_j"])
    except (ValueError, KeyError, TypeError):
        raise ReplyError("holds no total_energy_j") from None
    if not math.isfinite(joules):
        raise ReplyError(f"says {joules} J")
    return joules
