"""What a server says of itself while it serves: cache, queue and requests in flight, in the same words for every engine.

Apart from the meters: those read devices, this reads the server's own /metrics, and a study can do without it. One
file an engine turns that engine's names into a ServerSample; `scraper` takes samples over a window; `kv` computes
what no engine is asked for, and what llama.cpp does not tell.

with Scraper("http://127.0.0.1:8000", bytes_per_token=23040) as scraper:
    ...
reading = scraper.reading()
"""

from tuner.measure.server.engines import ENGINES
from tuner.measure.server.engines import read_metrics
from tuner.measure.server.kv import analytic_kv
from tuner.measure.server.kv import kv_bytes_per_token
from tuner.measure.server.kv import kv_note
from tuner.measure.server.kv import load_model_config
from tuner.measure.server.kv import with_analytic_kv
from tuner.measure.server.reading import ServerReading
from tuner.measure.server.sample import ServerSample
from tuner.measure.server.scraper import Scraper

__all__ = [
    "ENGINES",
    "Scraper",
    "ServerReading",
    "ServerSample",
    "analytic_kv",
    "kv_bytes_per_token",
    "kv_note",
    "load_model_config",
    "read_metrics",
    "with_analytic_kv",
]
