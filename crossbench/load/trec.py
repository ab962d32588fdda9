"""A folder of MS MARCO's, TREC's or BEIR's files, joined: each query with its candidates."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from crossbench.errors import DatasetError
from crossbench.load.texts import Texts, read_texts
from crossbench.load.trec_folder import COLLECTION, QRELS, QUERIES, RUN, Folder
from crossbench.load.trec_tables import Candidates, Judgements, read_qrels, read_run
from crossbench.types import QueryPassages
from crossbench.wording import counted


@dataclass(frozen=True, slots=True)
class TrecData:
    """What read_trec() made of a folder.

    `warnings` says what was left out. `files` are those that were read, relative to the folder.
    `judged_left_out` is the number of queries with a relevant passage that could not be ranked for
    want of a text or of candidates.
    """

    lists: tuple[QueryPassages, ...]
    warnings: tuple[str, ...]
    files: tuple[str, ...]
    judged_left_out: int


def read_trec(
    path: Path,
    queries: str | None,
    collection: str | None,
    run: str | None,
    qrels: str | None,
    limit: int | None,
) -> TrecData:
    """One list per query that has candidates, in the order of the queries file, `limit` at most.

    The four names are files in the folder `path`; None finds the only one that fits, and `none`
    takes no run or no qrels. Without a run the judged passages are the candidates; those that the
    collection does not hold are left out, since a collection is often a part.

    Raises:
        DatasetError: a file is missing, ambiguous or empty, a line that is used is malformed, or
            the files do not belong together.
    """
    folder = Folder(path)
    queries_path = folder.required(QUERIES, queries)
    collection_path = folder.required(COLLECTION, collection)
    run_path, qrels_path = folder.find(RUN, run), folder.find(QRELS, qrels)
    source = run_path or qrels_path  # of the candidates
    if source is None:
        raise DatasetError(
            f"{path} has neither a run nor a qrels file: add run*.txt or qrels*.txt, or name it "
            "with dataset.run=FILE or dataset.qrels=FILE"
        )
    judgements, notes = read_qrels(qrels_path) if qrels_path else ({}, [])
    if run_path:
        candidates, run_notes = read_run(run_path)
        notes += run_notes
    else:
        candidates = {query: list(grades) for query, grades in judgements.items()}
        if run is None and (
            runs := folder.possible_runs((queries_path, collection_path, qrels_path))
        ):
            notes.append(
                f"No run was read, so the judged passages are the candidates; {', '.join(runs)} "
                f"begins as a run does: name it with dataset.run={runs[0]}."
            )

    texts = read_texts(queries_path, candidates.keys() | judgements.keys())
    ranked = [query for query in texts.order if query in candidates]
    _check_queries(texts, ranked, candidates, source)
    if run_path and qrels_path:
        _check_judged(texts, judgements, qrels_path)
    if run_path:
        # A run's lists are always whole, so no other texts are needed
        sent = ranked[:limit]
        passages = read_texts(collection_path, _union(candidates, sent))
        _check_whole(candidates, sent, passages, run_path)
        notes += _left_out_of_run(texts, candidates, ranked, run_path)
    else:
        passages = read_texts(collection_path, _union(candidates, ranked))
        notes += _keep_held(candidates, ranked, passages, source)
        ranked = [query for query in ranked if candidates[query]]
        sent = ranked[:limit]
    if unusable := next((query for query in sent if query in texts.unusable), None):
        raise DatasetError(texts.unusable[unusable])

    lists = tuple(
        _joined(query, texts, candidates[query], passages, judgements if qrels_path else None)
        for query in sent
    )
    left_out = 0
    if qrels_path:
        told, left_out = _judgement_notes(judgements, set(ranked), lists, qrels_path)
        notes += told
    files = (queries_path, collection_path, run_path, qrels_path)
    return TrecData(
        lists,
        (*folder.notes, *notes, *texts.notes(), *passages.notes()),
        tuple(_name(file, path) for file in files if file is not None),
        left_out,
    )


def _joined(
    query: str,
    texts: Texts,
    candidates: Sequence[str],
    passages: Texts,
    judgements: Judgements | None,
) -> QueryPassages:
    grades = {} if judgements is None else judgements.get(query, {})
    return QueryPassages(
        query_id=query,
        query=texts.found[query],
        passage_ids=tuple(candidates),
        passages=tuple(passages.found[passage] for passage in candidates),
        relevance=(
            None if judgements is None else tuple(grades.get(passage) for passage in candidates)
        ),
        other_grades=tuple(grades[passage] for passage in sorted(grades.keys() - set(candidates))),
    )


def _union(candidates: Candidates, queries: Sequence[str]) -> set[str]:
    return {passage for query in queries for passage in candidates[query]}


def _check_queries(
    texts: Texts, ranked: Sequence[str], candidates: Candidates, source: Path
) -> None:
    if not ranked:
        found = texts.other or _some(texts.order) or texts.first_skipped
        raise DatasetError(
            f"no query with passages: none of the {counted(len(candidates), 'query')} of {source} "
            f"({_some(candidates)}) is in {texts.path} ({found}): give the "
            "queries that it was made for"
        )


def _check_judged(texts: Texts, judgements: Judgements, qrels: Path) -> None:
    """Judgements of other queries would only be missed at the end, as a report without nDCG."""
    if not judgements.keys() & texts.order.keys():
        raise DatasetError(
            f"none of the {counted(len(judgements), 'query')} judged in {qrels} "
            f"({_some(judgements)}) is in {texts.path} ({_some(texts.order)}): give the judgements "
            "of these queries, or take none with dataset.qrels=none"
        )


def _check_whole(candidates: Candidates, sent: Sequence[str], passages: Texts, run: Path) -> None:
    for query in sent:
        for passage in candidates[query]:
            if passage in passages.unusable:
                raise DatasetError(passages.unusable[passage])
            if passage not in passages.found:
                skipped = f"; {passages.notes()[0]}" if passages.skipped else ""
                raise DatasetError(
                    f"{run} ranks passage {passage} for query {query}, which {passages.path} does "
                    f"not hold: give the collection that the run was made on{skipped}"
                )


def _left_out_of_run(
    texts: Texts, candidates: Candidates, ranked: Sequence[str], run: Path
) -> list[str]:
    notes = []
    if unknown := len(candidates) - len(ranked):
        notes.append(
            f"{unknown:,} of {counted(len(candidates), 'query')} in {run.name} {_have(unknown)} no "
            f"text in {texts.path.name} and cannot be sent."
        )
    queries = len(texts.order) + texts.others
    if unranked := queries - len(ranked):
        notes.append(
            f"{unranked:,} of {counted(queries, 'query')} in {texts.path.name} {_have(unranked)} "
            f"no candidates in {run.name} and cannot be sent."
        )
    return notes


def _keep_held(
    candidates: Candidates, ranked: Sequence[str], passages: Texts, qrels: Path
) -> list[str]:
    """Take what the collection has no text for out of the candidates, which are the judged ones.

    Raises:
        DatasetError: that leaves none.
    """
    judged = sum(len(candidates[query]) for query in ranked)
    for query in ranked:
        candidates[query] = [item for item in candidates[query] if item in passages.found]
    held = sum(len(candidates[query]) for query in ranked)
    if not held:
        raise DatasetError(
            f"no query with passages: {passages.path} holds none of the passages that {qrels} "
            "judges: give the collection that was judged"
        )
    if held == judged:
        return []
    return [
        f"{judged - held:,} of {counted(judged, 'judged passage')} {_have(judged - held)} no text "
        f"in {passages.path.name} and cannot be sent; nDCG@10 counts them as not found."
    ]


def _judgement_notes(
    judgements: Judgements, ranked: set[str], lists: Sequence[QueryPassages], qrels: Path
) -> tuple[list[str], int]:
    """What the judgements do not say, and how many queries with a relevant passage are missing."""
    relevant = {query for query, grades in judgements.items() if max(grades.values()) > 0}
    if not relevant:
        return [
            f"{qrels.name} holds no grade above 0, so nothing is relevant and there is no nDCG@10 "
            "or MRR@10."
        ], 0
    notes, missing = [], len(relevant - ranked)
    if missing == len(relevant):
        notes.append(
            f"None of the {counted(missing, 'query')} with a relevant passage in {qrels.name} "
            f"({_some(sorted(relevant))}) has a text and candidates, so there is no nDCG@10 or "
            "MRR@10."
        )
    elif missing:
        notes.append(
            f"{missing:,} of {counted(len(relevant), 'query')} with a relevant passage in "
            f"{qrels.name} {_have(missing)} no text or no candidates: nDCG@10 and MRR@10 are over "
            "the others alone, as trec_eval has them without its option -c."
        )
    if barren := len((judgements.keys() - relevant) & ranked):
        notes.append(
            f"For {counted(barren, 'query')} {qrels.name} holds no grade above 0: nDCG@10 and "
            "MRR@10 leave them out, where trec_eval counts 0."
        )
    if missing < len(relevant) and all(not _any_judged(entry) for entry in lists):
        notes.append(
            f"No passage that is sent is judged in {qrels.name} for its query, so nDCG@10 and "
            "MRR@10 are 0 in any order: are the identifiers those of the same collection?"
        )
    return notes, missing


def _any_judged(entry: QueryPassages) -> bool:
    return any(grade is not None for grade in entry.relevance or ())


def _name(file: Path, folder: Path) -> str:
    return str(file.relative_to(folder) if file.is_relative_to(folder) else file)


def _have(count: int) -> str:
    return "has" if count == 1 else "have"


def _some(identifiers: Iterable[str]) -> str:
    return ", ".join(islice(identifiers, 3))
