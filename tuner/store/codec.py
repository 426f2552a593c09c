"""Spans, checkpoints and samples as one compressed blob: prompts of one run repeat each other, so they shrink some tenfold together."""

import json
import zlib
from dataclasses import asdict

from workflows.base import Checkpoint
from workflows.trace import Span

Samples = tuple[tuple[float, float], ...]


def pack_trace(
    spans: tuple[Span, ...], checkpoints: tuple[Checkpoint, ...], samples: Samples
) -> bytes:
    """The blob that `unpack_trace` reads."""
    content = {
        "spans": [asdict(span) for span in spans],
        "checkpoints": [asdict(checkpoint) for checkpoint in checkpoints],
        "samples": samples,
    }
    text = json.dumps(content, ensure_ascii=False)
    return zlib.compress(text.encode("utf-8", "surrogatepass"), level=6)


def unpack_trace(blob: bytes) -> tuple[tuple[Span, ...], tuple[Checkpoint, ...], Samples]:
    """Spans, checkpoints and samples, as they were packed; blobs of before have no samples."""
    content = json.loads(zlib.decompress(blob).decode("utf-8", "surrogatepass"))
    spans = tuple(Span(**span) for span in content["spans"])
    checkpoints = tuple(Checkpoint(**checkpoint) for checkpoint in content["checkpoints"])
    samples = tuple((seconds, joules) for seconds, joules in content.get("samples", ()))
    return spans, checkpoints, samples
