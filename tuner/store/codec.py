"""Spans and checkpoints as one compressed blob: prompts of one run repeat each other, so they shrink some tenfold together."""

import json
import zlib
from dataclasses import asdict

from workflows.base import Checkpoint
from workflows.trace import Span


def pack_trace(spans: tuple[Span, ...], checkpoints: tuple[Checkpoint, ...]) -> bytes:
    """The blob that `unpack_trace` reads."""
    content = {
        "spans": [asdict(span) for span in spans],
        "checkpoints": [asdict(checkpoint) for checkpoint in checkpoints],
    }
    return zlib.compress(json.dumps(content, ensure_ascii=False).encode(), level=6)


def unpack_trace(blob: bytes) -> tuple[tuple[Span, ...], tuple[Checkpoint, ...]]:
    """Spans and checkpoints, as they were packed."""
    content = json.loads(zlib.decompress(blob))
    spans = tuple(Span(**span) for span in content["spans"])
    return spans, tuple(Checkpoint(**checkpoint) for checkpoint in content["checkpoints"])
