"""Reader for folders in the format of MS MARCO, TREC or BEIR: joins queries with candidates."""

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
    """The result of read_trec().

    `warnings` are sentences about data that was skipped. `files` are the files that were read,
    relative to the folder. `judged_left_out`: see LoadedDataset.
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
    """Return one list per query with candidates, in the order of the queries file, up to `limit`.

    The four names are files in the folder `path`. None finds the file by its name, and `none` uses
    no run or no qrels. Without a run, the candidates are the judged passages. Judged passages that
    are not in the collection are skipped, since a collection is often only a part.

    Raises:
        DatasetError: a file is missing, ambiguous or empty, a required line is malformed, or the
            files do not belong together.
    """
    folder = Folder(path)
    queries_path = folder.required(QUERIES, queries)
    collection_path = folder.required(COLLECTION, collection)
    run_path, qrels_path = folder.find(RUN, run), folder.find(QRELS, qrels)
    source = run_path or qrels_path  # where the candidates come from
    if source is None:
        raise DatasetError(
            f"{path} contains neither a run nor a qrels file: add run*.txt or qrels*.txt, or give "
            "its name with dataset.run=FILE or dataset.qrels=FILE"
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
                f"No run was read, so the judged passages are the candidates. {', '.join(runs)} "
                f"looks like a run: to use it, give dataset.run={runs[0]}."
            )

    texts = read_texts(queries_path, candidates.keys() | judgements.keys())
    ranked = [query for query in texts.order if query in candidates]
    _check_queries(texts, ranked, candidates, source)
    if run_path and qrels_path:
        _check_judged(texts, judgements, qrels_path)
    if run_path:
        # The lists of a run are never shortened, so only the texts of sent queries are needed
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
        judgement_notes, left_out = _judgement_notes(judgements, set(ranked), lists, qrels_path)
        notes += judgement_notes
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
        found = texts.other or _examples(texts.order) or texts.first_skipped
        raise DatasetError(
            f"no query with passages: none of the {counted(len(candidates), 'query')} of {source} "
            f"({_examples(candidates)}) is in {texts.path} ({found}): give the queries file that "
            "belongs to it"
        )


def _check_judged(texts: Texts, judgements: Judgements, qrels: Path) -> None:
    """Check that the judgements belong to the queries, or else the report would have no nDCG.

    Raises:
        DatasetError: no query of the queries file is judged.
    """
    if not judgements.keys() & texts.order.keys():
        raise DatasetError(
            f"none of the {counted(len(judgements), 'query')} judged in {qrels} "
            f"({_examples(judgements)}) is in {texts.path} ({_examples(texts.order)}): give the "
            "judgements of these queries, or use none with dataset.qrels=none"
        )


def _check_whole(candidates: Candidates, sent: Sequence[str], passages: Texts, run: Path) -> None:
    for query in sent:
        for passage in candidates[query]:
            if passage in passages.unusable:
                raise DatasetError(passages.unusable[passage])
            if passage not in passages.found:
                skipped = f"; {passages.notes()[0]}" if passages.skipped else ""
                raise DatasetError(
                    f"{run} ranks passage {passage} for query {query}, but {passages.path} does "
                    f"not contain it: give the collection that belongs to the run{skipped}"
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
    """Remove the candidates, which are the judged passages, that have no text in the collection.

    Raises:
        DatasetError: no candidate is left.
    """
    judged = sum(len(candidates[query]) for query in ranked)
    for query in ranked:
        candidates[query] = [item for item in candidates[query] if item in passages.found]
    held = sum(len(candidates[query]) for query in ranked)
    if not held:
        raise DatasetError(
            f"no query with passages: {passages.path} contains none of the passages judged in "
            f"{qrels}: give the collection that belongs to the judgements"
        )
    if held == judged:
        return []
    return [
        f"{judged - held:,} of {counted(judged, 'judged passage')} {_have(judged - held)} no text "
        f"in {passages.path.name} and cannot be sent. nDCG@10 counts them as not found."
    ]


def _judgement_notes(
    judgements: Judgements, ranked: set[str], lists: Sequence[QueryPassages], qrels: Path
) -> tuple[list[str], int]:
    """Return notes on gaps in the judgements, and the number of judged queries without candidates.

    The number counts only queries with a relevant passage.
    """
    relevant = {query for query, grades in judgements.items() if max(grades.values()) > 0}
    if not relevant:
        return [
            f"{qrels.name} contains no grade above 0, so no passage is relevant and nDCG@10 and "
            "MRR@10 are undefined."
        ], 0
    notes, missing = [], len(relevant - ranked)
    if missing == len(relevant):
        notes.append(
            f"None of the {counted(missing, 'query')} with a relevant passage in {qrels.name} "
            f"({_examples(sorted(relevant))}) has a text and candidates, so nDCG@10 and MRR@10 are "
            "undefined."
        )
    elif missing:
        notes.append(
            f"{missing:,} of {counted(len(relevant), 'query')} with a relevant passage in "
            f"{qrels.name} {_have(missing)} no text or no candidates: nDCG@10 and MRR@10 are means "
            "over the other queries, as in trec_eval without its option -c."
        )
    if not_relevant := len((judgements.keys() - relevant) & ranked):
        notes.append(
            f"{counted(not_relevant, 'query')} in {qrels.name} {_have(not_relevant)} no grade "
            "above 0: nDCG@10 and MRR@10 leave them out, while trec_eval counts them as 0."
        )
    if missing < len(relevant) and all(not _any_judged(entry) for entry in lists):
        notes.append(
            f"{qrels.name} judges none of the candidates of any query, so nDCG@10 and MRR@10 are 0 "
            "for every order: check that the identifiers are those of the same collection."
        )
    return notes, missing


def _any_judged(entry: QueryPassages) -> bool:
    return any(grade is not None for grade in entry.relevance or ())


def _name(file: Path, folder: Path) -> str:
    return str(file.relative_to(folder) if file.is_relative_to(folder) else file)


def _have(count: int) -> str:
    return "has" if count == 1 else "have"


def _examples(identifiers: Iterable[str]) -> str:
    return ", ".join(islice(identifiers, 3))
