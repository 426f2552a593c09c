"""Exported configs of the service's studies: as files for whoever asks, and kept for verifications.

Apart from `tuner.export`, which writes them: here is where.
"""

import hashlib
import tempfile
from contextlib import closing
from pathlib import Path

from tuner.export import chosen
from tuner.export import export
from tuner.proxy import dump_proxy_config
from tuner.results import open_results
from tuner.rules import Choice
from tuner.rules import Rule
from tuner.service.book import Submission
from tuner.service.engine import Folders
from tuner.service.totals import Totals
from tuner.service.wire import Export
from tuner.service.wire import Exported


class Exports:
    """Makes them."""

    def __init__(self, folders: Folders, totals: Totals) -> None:
        self._folders = folders
        self._totals = totals

    def make(self, row: Submission, asked: Export) -> Exported:
        """What a rule recommends, as files. Raises UserError where nothing can be recommended."""
        with tempfile.TemporaryDirectory(dir=self._folders.of(row.name)) as place:
            if asked.format == "agent":
                out = Path(place) / "best.yaml"
                choice = self._write(row, asked.rule, out)
            else:
                out = Path(place) / "litellm.yaml"
                study = self._totals.study(row)
                with closing(open_results(study)) as store:
                    choice, agent = chosen(study, store, rule=Rule.parse(asked.rule), out=out)
                dump_proxy_config(agent, out)
            return Exported(
                trial=choice.point.trial.number,
                why=choice.why,
                file=out.name,
                files={
                    path.name: path.read_text(encoding="utf-8")
                    for path in sorted(Path(place).iterdir())
                },
            )

    def keep(self, row: Submission, rule: str) -> str:
        """The name of a file with what a rule recommends, which stays. Raises UserError as `make` does."""
        folder = self._folders.exports(row.name)
        folder.mkdir(parents=True, exist_ok=True)
        tag = hashlib.sha256(rule.encode()).hexdigest()[:8]
        with tempfile.TemporaryDirectory(dir=folder) as place:
            choice = self._write(row, rule, Path(place) / "tried.yaml")
        out = folder / f"trial-{choice.point.trial.number}-{tag}.yaml"
        self._write(row, rule, out)
        return out.name

    def _write(self, row: Submission, rule: str, out: Path) -> Choice:
        study = self._totals.study(row)
        with closing(open_results(study)) as store:
            return export(study, store, rule=Rule.parse(rule), out=out)
