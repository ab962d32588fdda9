"""Readers for runs and judgements (qrels) in the formats of TREC, MS MARCO and BEIR.

A run with six columns is ordered as in trec_eval: by descending score, and for equal scores by
descending passage id. Scores are compared as 32-bit floats and the rank is ignored. A run with
three columns has no scores and is ordered by rank.
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

Judgements = dict[str, dict[str, int]]  # query -> passage -> grade
Candidates = dict[str, list[str]]  # query -> passages, best first

_INTEGER = re.compile(r"[+-]?\d{1,15}(?:\.0*)?", re.ASCII)  # 1, -2, 1.0
_SPACES = re.compile(r"[ \t\r\v\f]+")
_RUN = "'query Q0 passage rank score tag' or 'query passage rank'"
_QRELS = "'query 0 passage grade' or 'query<TAB>passage<TAB>grade'"


@dataclass(slots=True)
class _Ranked:
    """The rows of one query, in the order of the file. Arrays, since a run has millions of rows."""

    lines: array[int] = field(default_factory=lambda: array("q"))
    passages: list[str] = field(default_factory=list)
    ranks: array[int] = field(default_factory=lambda: array("q"))
    scores: array[float] = field(default_factory=lambda: array("d"))  # empty without that column


def read_run(path: Path) -> tuple[Candidates, list[str]]:
    """Return the passages of each query, best first, and a sentence for each oddity of the file.

    Raises:
        DatasetError: a line is malformed, a score is not a number, or a passage occurs twice for a
            query with different ranks or scores.
    """
    rows: dict[str, _Ranked] = {}
    columns = 0
    for number, line in text_lines(path):
        fields = _fields(line, (6, 3))
        if number == 1 and len(fields) in (3, 6) and header_like(fields[0]):
            rank = fields[3] if len(fields) == 6 else fields[2]
            if not _INTEGER.fullmatch(rank):
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
        found.ranks.append(_integer(rank, path, number, "rank"))
        if columns == 6:
            found.scores.append(_score(score, path, number))
    if not rows:
        raise DatasetError(f"{path} is empty: get the file again")
    repeated = sum(_drop_repeated(query, found, path) for query, found in rows.items())
    notes = [f"{path.name}: skipped {counted(repeated, 'repeated row')}."] if repeated else []
    if columns == 6:
        return _by_score(rows, path, notes), notes
    return _by_rank(rows, path, notes), notes


def read_qrels(path: Path) -> tuple[Judgements, list[str]]:
    """Return the grades, and a sentence for each oddity of the file.

    Raises:
        DatasetError: a line is malformed, a grade is not an integer, or a passage has two grades
            for a query.
    """
    judgements: Judgements = {}
    lines: dict[tuple[str, str], int] = {}
    repeated = 0
    for number, line in text_lines(path):
        fields = _fields(line, (4, 3))
        # Three columns require tabs: with spaces, such a line has probably lost its grade
        if len(fields) != 4 and not (len(fields) == 3 and line.count("\t") >= 2):
            raise DatasetError(f"{path}:{number}: expected {_QRELS}, found {line[:80]!r}")
        query, passage, grade_text = fields[0], fields[-2], fields[-1]
        if number == 1 and header_like(query) and not _INTEGER.fullmatch(grade_text):
            continue
        grade = _integer(grade_text, path, number, "grade")
        first = lines.setdefault((query, passage), number)
        if first != number:
            if judgements[query][passage] != grade:
                raise DatasetError(
                    f"{path}:{number}: passage {passage} of query {query} has the grade {grade}, "
                    f"but {judgements[query][passage]} in line {first}: keep one of the two lines"
                )
            repeated += 1
        judgements.setdefault(query, {})[passage] = grade
    if not judgements:
        raise DatasetError(f"{path} is empty: get the file again")
    notes = [f"{path.name}: skipped {counted(repeated, 'repeated row')}."] if repeated else []
    return judgements, notes


def _drop_repeated(query: str, found: _Ranked, path: Path) -> int:
    """Remove repeated rows, and return their number."""
    if len(set(found.passages)) == len(found.passages):
        return 0
    places: dict[str, int] = {}
    for place, passage in enumerate(found.passages):
        first = places.setdefault(passage, place)
        same_score = not found.scores or found.scores[first] == found.scores[place]
        if found.ranks[first] != found.ranks[place] or not same_score:
            raise DatasetError(
                f"{path}:{found.lines[place]}: passage {passage} of query {query} has another rank "
                f"or score in line {found.lines[first]}: keep one of the two lines"
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
            f"{path.name}: ranks and scores disagree for {contradicted} of "
            f"{counted(len(rows), 'query')}. Passages are ordered by descending score, as in "
            "trec_eval. To order a run by its ranks, give three columns: query, passage, rank."
        )
    if tied:
        notes.append(
            f"{path.name}: the ranks of equal scores differ from trec_eval's for {tied} of "
            f"{counted(len(rows), 'query')}. Passages with equal scores are ordered by descending "
            "id, as in trec_eval."
        )
    return candidates


def _against_ranks(ranks: Sequence[int], scores: Float32Array) -> tuple[bool, bool]:
    """Return whether the ranks contradict the order of unequal scores, and that of equal ones.

    `ranks` and `scores` are in the order of the scores. Equal ranks contradict nothing.
    """
    above = within = False
    highest = highest_before = -math.inf  # highest rank so far, and among strictly greater scores
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
            f"{path}: the third column decreases in every query, so it seems to contain scores and "
            "not ranks: give scores in six columns (query Q0 passage rank score tag), or sort the "
            "rows of each query by rank"
        )
    if late := sum(min(found.ranks) > 1 for found in rows.values()):
        notes.append(
            f"{path.name}: the ranks of {late} of {counted(len(rows), 'query')} start above 1. "
            "The third of three columns is read as a rank, smallest first; scores need six columns."
        )
    tied = sum(len(set(found.ranks)) < len(found.ranks) for found in rows.values())
    if tied:
        notes.append(
            f"{path.name}: several passages have the same rank for {tied} of "
            f"{counted(len(rows), 'query')}. They are in the order of the file."
        )
    return {
        query: [
            found.passages[place]
            for place in sorted(range(len(found.ranks)), key=found.ranks.__getitem__)
        ]
        for query, found in rows.items()
    }


def _fields(line: str, counts: tuple[int, int]) -> list[str]:
    """Split a line at tabs if that gives one of the allowed numbers of columns, else at spaces."""
    fields = [part.strip() for part in line.strip().split("\t")]
    if len(fields) in counts and all(fields):
        return fields
    # str.split() would also split at spaces that identifiers may contain, such as U+00A0
    return line.split() if line.isascii() else _SPACES.split(line.strip(" \t\r"))


def _integer(text: str, path: Path, number: int, what: str) -> int:
    if not _INTEGER.fullmatch(text):
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
