"""Runs and judgements (qrels) as TREC, MS MARCO and BEIR write them.

A run of six columns is ordered as trec_eval orders it: by score, the greatest first, of equal ones
the greater passage id first. trec_eval compares scores as 32-bit floats and ignores the rank; so
does this. A run of three columns has no score and is ordered by rank.
"""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from crossbench.errors import DatasetError
from crossbench.load.text_lines import text_lines
from crossbench.load.texts import header_like
from crossbench.types import Float32Array
from crossbench.wording import counted

Judgements = dict[str, dict[str, int]]  # grades by query and passage
Candidates = dict[str, list[str]]  # passages by query, the best first

_WHOLE = re.compile(r"[+-]?\d{1,15}(?:\.0*)?", re.ASCII)  # 1, -2, 1.0
_SPACES = re.compile(r"[ \t\r\v\f]+")
_RUN = "'query Q0 passage rank score tag' or 'query passage rank'"
_QRELS = "'query 0 passage grade' or 'query<TAB>passage<TAB>grade'"


@dataclass(slots=True)
class _Ranked:
    """One query's rows of a run, in the file's order; arrays, since a run has millions of rows."""

    lines: array[int] = field(default_factory=lambda: array("q"))
    passages: list[str] = field(default_factory=list)
    ranks: array[int] = field(default_factory=lambda: array("q"))
    scores: array[float] = field(default_factory=lambda: array("d"))  # none without that column


def read_run(path: Path) -> tuple[Candidates, list[str]]:
    """The passages of each query, the best first, and a sentence for each oddity.

    Raises:
        DatasetError: a line is malformed, a score is not a number, or a passage stands twice for a
            query with different ranks or scores.
    """
    rows: dict[str, _Ranked] = {}
    columns = 0
    for number, line in text_lines(path):
        fields = _fields(line, (6, 3))
        if number == 1 and len(fields) in (3, 6) and header_like(fields[0]):
            rank = fields[3] if len(fields) == 6 else fields[2]
            if not _WHOLE.fullmatch(rank):
                continue
        columns = columns or len(fields)
        if len(fields) not in (3, 6) or len(fields) != columns:
            raise DatasetError(f"{path}:{number}: expected {_RUN}, found {line[:80]!r}")
        if columns == 6:
            query, _, passage, rank, score, _ = fields
        else:
            (query, passage, rank), score = fields, ""
        found = rows.setdefault(query, _Ranked())
        found.lines.append(number)
        found.passages.append(passage)
        found.ranks.append(_whole(rank, path, number, "rank"))
        if columns == 6:
            found.scores.append(_score(score, path, number))
    if not rows:
        raise DatasetError(f"{path} is empty")
    repeated = sum(_drop_repeated(query, found, path) for query, found in rows.items())
    notes = [f"{path.name}: {counted(repeated, 'repeated row')} left out."] if repeated else []
    if columns == 6:
        return _by_score(rows, path, notes), notes
    return _by_rank(rows, path, notes), notes


def read_qrels(path: Path) -> tuple[Judgements, list[str]]:
    """Grades by query and passage, and a sentence for each oddity.

    Raises:
        DatasetError: a line is malformed, a grade is not a whole number, or a passage has two
            grades for a query.
    """
    judgements: Judgements = {}
    lines: dict[tuple[str, str], int] = {}
    repeated = 0
    for number, line in text_lines(path):
        fields = _fields(line, (4, 3))
        # Three columns only with tabs: with spaces it is rather a line that lost its grade
        if len(fields) != 4 and not (len(fields) == 3 and line.count("\t") >= 2):
            raise DatasetError(f"{path}:{number}: expected {_QRELS}, found {line[:80]!r}")
        query, passage, grade_text = fields[0], fields[-2], fields[-1]
        if number == 1 and header_like(query) and not _WHOLE.fullmatch(grade_text):
            continue
        grade = _whole(grade_text, path, number, "grade")
        first = lines.setdefault((query, passage), number)
        if first != number:
            if judgements[query][passage] != grade:
                raise DatasetError(
                    f"{path}:{number}: passage {passage} of query {query} has the grade {grade}, "
                    f"and {judgements[query][passage]} in line {first}: keep one of them"
                )
            repeated += 1
        judgements.setdefault(query, {})[passage] = grade
    if not judgements:
        raise DatasetError(f"{path} is empty")
    notes = [f"{path.name}: {counted(repeated, 'repeated row')} left out."] if repeated else []
    return judgements, notes


def _drop_repeated(query: str, found: _Ranked, path: Path) -> int:
    """Keep the first of equal rows; how many were dropped."""
    if len(set(found.passages)) == len(found.passages):
        return 0
    places: dict[str, int] = {}
    for place, passage in enumerate(found.passages):
        first = places.setdefault(passage, place)
        same_score = not found.scores or found.scores[first] == found.scores[place]
        if found.ranks[first] != found.ranks[place] or not same_score:
            raise DatasetError(
                f"{path}:{found.lines[place]}: passage {passage} of query {query} is ranked again, "
                f"and otherwise than in line {found.lines[first]}: keep one of them"
            )
    kept, dropped = list(places.values()), len(found.passages) - len(places)
    found.passages = [found.passages[place] for place in kept]
    found.ranks = array("q", [found.ranks[place] for place in kept])
    if found.scores:
        found.scores = array("d", [found.scores[place] for place in kept])
    return dropped


def _by_score(rows: dict[str, _Ranked], path: Path, notes: list[str]) -> Candidates:
    candidates: Candidates = {}
    contradicted = tied = 0
    for query, found in rows.items():
        with np.errstate(over="ignore"):
            scores = np.asarray(found.scores).astype(np.float32)
        by_id = sorted(range(len(scores)), key=found.passages.__getitem__, reverse=True)
        order = [by_id[place] for place in np.argsort(-scores[by_id], kind="stable")]
        candidates[query] = [found.passages[place] for place in order]
        above, within = _against_ranks([found.ranks[place] for place in order], scores[order])
        contradicted += above
        tied += within
    if contradicted:
        notes.append(
            f"{path.name}: the ranks contradict the scores for {contradicted} of "
            f"{counted(len(rows), 'query')}. Passages are in the order of their scores, the "
            "greatest first, as trec_eval has them; a run whose order is its ranks can be given "
            "as three columns: query, passage, rank."
        )
    if tied:
        notes.append(
            f"{path.name}: equal scores have other ranks than trec_eval gives them for {tied} of "
            f"{counted(len(rows), 'query')}. Passages of equal score are in descending order of "
            "their ids, as trec_eval has them."
        )
    return candidates


def _against_ranks(ranks: Sequence[int], scores: Float32Array) -> tuple[bool, bool]:
    """Whether the rank column orders unequal scores, and equal ones, in another way.

    Both are in the order of the scores; a rank that is the same everywhere says nothing.
    """
    above = within = False
    highest = highest_before = -math.inf  # so far; among strictly greater scores
    for place, rank in enumerate(ranks):
        if place and scores[place] != scores[place - 1]:
            highest_before = highest
        elif place and rank < ranks[place - 1]:
            within = True
        above = above or rank < highest_before
        highest = max(highest, rank)
    return above, within


def _by_rank(rows: dict[str, _Ranked], path: Path, notes: list[str]) -> Candidates:
    several = [found.ranks for found in rows.values() if len(found.ranks) > 1]
    if several and all(
        min(ranks) > 1 and list(ranks) == sorted(set(ranks), reverse=True) for ranks in several
    ):
        raise DatasetError(
            f"{path}: its third column falls from row to row in every query, as scores do and "
            "ranks do not. Give scores in six columns (query Q0 passage rank score tag), or the "
            "rows of each query in the order of their ranks"
        )
    if late := sum(min(found.ranks) > 1 for found in rows.values()):
        notes.append(
            f"{path.name}: the ranks of {late} of {counted(len(rows), 'query')} begin above 1. "
            "The third of three columns is taken as a rank, the smallest first; scores need six."
        )
    tied = sum(len(set(found.ranks)) < len(found.ranks) for found in rows.values())
    if tied:
        notes.append(
            f"{path.name}: several passages of one rank for {tied} of "
            f"{counted(len(rows), 'query')}; these are in the file's order."
        )
    return {
        query: [
            found.passages[place]
            for place in sorted(range(len(found.ranks)), key=found.ranks.__getitem__)
        ]
        for query, found in rows.items()
    }


def _fields(line: str, counts: tuple[int, int]) -> list[str]:
    """The columns: between tabs where that gives as many as there may be, else between spaces."""
    fields = [part.strip() for part in line.strip().split("\t")]
    if len(fields) in counts and all(fields):
        return fields
    # str.split() would also cut at spaces that identifiers may hold, such as U+00A0
    return line.split() if line.isascii() else _SPACES.split(line.strip(" \t\r"))


def _whole(text: str, path: Path, number: int, what: str) -> int:
    if not _WHOLE.fullmatch(text):
        raise DatasetError(f"{path}:{number}: the {what} {text!r} is not an integer")
    return int(text.partition(".")[0])


def _score(text: str, path: Path, number: int) -> float:
    try:
        score = math.nan if "_" in text else float(text)
    except ValueError:
        score = math.nan
    if math.isnan(score):
        raise DatasetError(f"{path}:{number}: the score {text!r} is not a number")
    return score
