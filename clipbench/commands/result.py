"""The result of a command as data frames and figures, which shows itself in a notebook."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from clipbench.errors import InputError, Place, did_you_mean

if TYPE_CHECKING:
    from pandas import DataFrame

    from clipbench.analysis.report_model import ArmResult, Report
    from clipbench.commands.session import Finished
    from clipbench.reporting.table import Table
    from clipbench.store.folder import Store
    from clipbench.store.sweep_file import SweepDocument

MOST_SETTINGS = 4  # whose tables a notebook shows
# The columns of `Result.table` after those that tell settings apart; `Result.arms` has all.
TABLE = (
    "arm", "strategy", "threshold", "metric", "mean", "low", "high", "difference_mean", "difference_low",
    "difference_high", "p_holm", "dz", "wins", "ties", "losses", "diverged", "trials", "clip/fired_share",
    "grad_norm/pre_p50", "step_us", "verdict", "flags",
)  # fmt: skip
CLAIMS = (
    "says", "expect", "metric", "verdict", "evidence", "difference_mean", "difference_low", "difference_high", "p",
    "p_holm", "family", "pairs", "seeds_needed", "seeds_needed_low",
)  # fmt: skip


class Result:
    """The comparison of one or several experiments, as data frames and figures.

    A notebook shows the headline and the comparison table. Columns have the names of the Parquet files; where there
    are several experiments, the first column is `experiment`.
    """

    def __init__(self, finished: Sequence[Finished]) -> None:
        self._finished = tuple(finished)
        self.figures: Mapping[str, SvgFigure] = {figure.name: figure for figure in self._read_figures()}

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the experiments."""
        return tuple(each.subject.name for each in self._finished)

    @property
    def folders(self) -> tuple[Path, ...]:
        """The results folder of each experiment; its page is `report.html`."""
        return tuple(each.folder for each in self._finished)

    @property
    def headlines(self) -> tuple[str, ...]:
        """The conclusion of each setting, in a sentence."""
        from clipbench.reporting.headline import sentence

        return tuple(sentence(setting) for each in self._finished for setting in each.report.settings)

    @property
    def trained(self) -> int:
        """The number of trials that this call has trained."""
        return sum(each.trained for each in self._finished)

    @property
    def failed(self) -> tuple[str, ...]:
        """Why trials failed, a line for each error; divergence is not an error."""
        return tuple(line for each in self._finished for line in each.failed)

    @cached_property
    def table(self) -> DataFrame:
        """The comparison: the baseline, then each strategy at its best threshold, from the best to the worst."""
        return self._concat([_table(each.report) for each in self._finished])

    @cached_property
    def arms(self) -> DataFrame:
        """Every arm of every setting with all its statistics: the content of `table.csv`."""
        return self._concat([_arms(each.report) for each in self._finished])

    @cached_property
    def claims(self) -> DataFrame:
        """The claims of the experiment, their verdicts and what the trials say about them."""
        return self._concat([_claims(each.report) for each in self._finished])

    @cached_property
    def points(self) -> DataFrame:
        """The points that a search has tried, as in `search.csv`; empty without a search."""
        return self._concat([_points(each.swept) for each in self._finished])

    @cached_property
    def trials(self) -> DataFrame:
        """One row per trial: its options, its final measures, its status."""
        return self._concat([_store(each).records(each.subject.ids) for each in self._finished])

    @cached_property
    def epochs(self) -> DataFrame:
        """One row per trial and epoch."""
        return self._concat([_store(each).epochs(each.subject.ids) for each in self._finished])

    @cached_property
    def steps(self) -> DataFrame:
        """One row per trial and step."""
        return self._concat([_store(each).steps(each.subject.ids) for each in self._finished])

    def figure(self, name: str) -> SvgFigure:
        """Return one of `figures`."""
        if name not in self.figures:
            remedy = did_you_mean(name, self.figures)
            raise InputError.at(Place(f"figure {name!r}"), "there is no figure of this name.", remedy)
        return self.figures[name]

    def __repr__(self) -> str:
        return "\n\n".join(_as_text(each.report) for each in self._finished)

    def _repr_html_(self) -> str:
        return "".join(map(_as_html, self._finished))

    def _concat(self, frames: Sequence[DataFrame]) -> DataFrame:
        import pandas as pd

        if len(frames) == 1:
            return frames[0]
        named = [frame.assign(experiment=name) for frame, name in zip(frames, self.names, strict=True)]
        joined = pd.concat(named, ignore_index=True)
        return joined[["experiment", *joined.columns.drop("experiment")]]

    def _read_figures(self) -> Iterator[SvgFigure]:
        """Read them at once: the next report of an experiment writes others in their place."""
        for each in self._finished:
            prefix = f"{each.subject.name}/" if len(self._finished) > 1 else ""
            for path in sorted((each.folder / "figures").glob("*.svg")):
                yield SvgFigure(f"{prefix}{path.stem}", path.read_text("utf-8"))


@dataclass(frozen=True, repr=False)
class SvgFigure:
    """A figure of a report. A notebook draws it; `save` writes it to a file."""

    name: str
    svg: str

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the SVG to a file."""
        Path(path).write_text(self.svg, encoding="utf-8")

    def _repr_svg_(self) -> str:
        return self.svg

    def __repr__(self) -> str:
        return f"<SvgFigure {self.name}>"


def _as_text(report: Report) -> str:
    parts = [report.name, *_about_search(report)]
    for headline, table, notes in _shown(report):
        parts += [headline, _written(table).to_string(index=False), *notes]
    return "\n".join(parts)


def _as_html(finished: Finished) -> str:
    """The conclusions and their tables, without a style: a notebook has its own, light or dark."""
    parts = [f"<h4>{escape(finished.report.name)}</h4>"]
    parts += [f"<p>{escape(line)}</p>" for line in _about_search(finished.report)]
    for headline, table, notes in _shown(finished.report):
        parts.append(f"<p><strong>{escape(headline)}</strong></p>")
        parts.append(_written(table).to_html(index=False, border=0, escape=True))
        parts += [f"<p>{escape(note)}</p>" for note in notes]
    page = escape(str(finished.folder / "report.html"))
    return "".join([*parts, f"<p>Full report: <code>{page}</code></p>"])


def _shown(report: Report) -> Iterator[tuple[str, Table[ArmResult], list[str]]]:
    """The headline, the comparison table and the remarks of each setting, as many as fit a notebook."""
    from clipbench.reporting import answer, comparison_tables, notes
    from clipbench.reporting.headline import sentence

    for number, setting in enumerate(report.settings[:MOST_SETTINGS], start=1):
        headline = f"{setting.label}: {sentence(setting)}" if setting.label else sentence(setting)
        remarks = [
            *(f"{flag.words} {flag.remedy}".strip() for flag in answer.flags(setting)),
            *(f"Note: {note}" for note in notes.of_setting(setting)),
        ]
        if number == len(report.settings):
            remarks += [f"Note: {note}" for note in notes.of_report(report)]
        elif number == MOST_SETTINGS:
            remarks.append(f"The full report has {len(report.settings) - number} more settings.")
        yield headline, comparison_tables.comparison(setting), remarks


def _about_search(report: Report) -> list[str]:
    from clipbench.reporting import search_sentences

    return [search_sentences.headline(report.search)] if report.search else []


def _written(table: Table[ArmResult]) -> DataFrame:
    """The table as a report writes it."""
    import pandas as pd

    headers = pd.Index([column.header for column in table.columns])
    return pd.DataFrame([[cell.text for cell in row] for row in table.cells], columns=headers, dtype=object)


def _arms(report: Report) -> DataFrame:
    import pandas as pd

    from clipbench.reporting.formats import csv_table

    return pd.DataFrame([csv_table.as_dict(row, setting) for setting in report.settings for row in setting.rows])


def _table(report: Report) -> DataFrame:
    import pandas as pd

    from clipbench.reporting.formats import csv_table

    rows = [csv_table.as_dict(row, setting) for setting in report.settings for row in setting.main]
    axes = dict.fromkeys(axis for setting in report.settings for axis in setting.axes)
    tuned = ["setting"] if len(report.settings) > 1 else []
    return pd.DataFrame(rows, columns=pd.Index([*tuned, *axes, *TABLE]))


def _claims(report: Report) -> DataFrame:
    import pandas as pd

    from clipbench.reporting import claim_evidence

    rows = [
        {
            **vars(claim),
            "metric": claim.metric.name if claim.metric else None,
            "evidence": claim_evidence.sentence(claim),
            **{f"difference_{name}": getattr(claim.difference, name) for name in ("mean", "low", "high")},
        }
        for claim in report.claims
    ]
    return pd.DataFrame(rows, columns=pd.Index(CLAIMS))


def _points(swept: SweepDocument | None) -> DataFrame:
    import pandas as pd

    from clipbench.reporting.formats import csv_table

    return csv_table.points(swept).infer_objects() if swept else pd.DataFrame()


def _store(finished: Finished) -> Store:
    from clipbench.store.folder import Store

    return Store(finished.folder)
