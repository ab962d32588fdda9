"""The files of MS MARCO passage ranking and TREC: queries, collection, run, qrels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from crossbench.errors import DatasetError
from crossbench.types import QueryPassages

Judgements = dict[str, dict[str, int]]


def read_trec(
    folder: Path, queries: str | None, collection: str | None, run: str | None, qrels: str | None
) -> Iterator[QueryPassages]:
    """One list per query that has candidates, in the order of the queries file.

    The four names are files in `folder`; None finds the only one that fits. Judged passages that
    the collection does not hold are left out where there is no run: a collection is often a part.

    Raises:
        DatasetError: a file is missing, ambiguous or empty, or a line malformed.
    """
    queries_path = _required(folder, queries, ("queries*.tsv", "*queries*.tsv"), "queries")
    collection_path = _required(
        folder, collection, ("collection*.tsv", "*collection*.tsv"), "collection"
    )
    run_path = _find(folder, run, ("run*", "*.run", "*.trec"), "run")
    qrels_path = _find(folder, qrels, ("qrels*", "*.qrels"), "qrels")
    if run_path is None and qrels_path is None:
        raise DatasetError(
            f"{folder} has neither a run nor a qrels file: add run*.txt or qrels*.txt, or name it "
            "with dataset.run=FILE or dataset.qrels=FILE"
        )
    judgements = _read_qrels(qrels_path) if qrels_path else {}
    if run_path:
        candidates = _read_run(run_path)
    else:
        candidates = {query: list(grades) for query, grades in judgements.items()}
    texts = _read_tsv(queries_path)
    wanted = {passage for query in texts for passage in candidates.get(query, ())}
    passages = _read_tsv(collection_path, wanted)
    for query_id, query in texts.items():
        found = [passage for passage in candidates.get(query_id, ()) if passage in passages]
        if run_path and len(found) < len(candidates.get(query_id, ())):
            missing = next(item for item in candidates[query_id] if item not in passages)
            raise DatasetError(
                f"{run_path} ranks passage {missing} for query {query_id}, which {collection_path} "
                "does not hold: give the collection that the run was made on"
            )
        if found:
            grades = judgements.get(query_id, {})
            yield QueryPassages(
                query_id=query_id,
                query=query,
                passage_ids=tuple(found),
                passages=tuple(passages[passage] for passage in found),
                relevance=tuple(grades.get(passage) for passage in found) if qrels_path else None,
                judged_elsewhere=tuple(
                    grades[passage] for passage in sorted(grades.keys() - set(found))
                ),
            )


def _find(folder: Path, name: str | None, patterns: tuple[str, ...], kind: str) -> Path | None:
    """The named file, or the only one that fits the first pattern that any file fits."""
    if name is not None:
        path = folder / name
        if not path.is_file():
            raise DatasetError(f"dataset.{kind}={name}: there is no such file in {folder}")
        return path
    for pattern in patterns:
        fitting = sorted(path for path in folder.glob(pattern) if path.is_file())
        if len(fitting) > 1:
            names = ", ".join(path.name for path in fitting)
            raise DatasetError(
                f"{folder} has several {kind} files ({names}): choose one with dataset.{kind}=FILE"
            )
        if fitting:
            return fitting[0]
    return None


def _required(folder: Path, name: str | None, patterns: tuple[str, ...], kind: str) -> Path:
    path = _find(folder, name, patterns, f"{kind}_file")
    if path is None:
        raise DatasetError(
            f"{folder} has no {kind} file ({patterns[0]}): add one, or name it with "
            f"dataset.{kind}_file=FILE"
        )
    return path


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines that are not blank. Only a line feed ends one: passages may hold others."""
    empty = True
    try:
        with path.open(encoding="utf-8-sig", newline="\n") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    empty = False
                    yield number, line.rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path} cannot be read as UTF-8 text ({error})") from error
    if empty:
        raise DatasetError(f"{path} is empty")


def _read_tsv(path: Path, wanted: set[str] | None = None) -> dict[str, str]:
    """Texts by identifier; with `wanted` only those, since a whole collection fills the memory."""
    texts: dict[str, str] = {}
    for number, line in _lines(path):
        identifier, tab, text = line.partition("\t")
        identifier, text = identifier.strip(), text.strip()
        if not tab or not identifier or not text:
            raise DatasetError(f"{path}:{number}: expected 'id<TAB>text', found {line[:80]!r}")
        if wanted is None or identifier in wanted:
            texts[identifier] = text
    return texts


def _read_run(path: Path) -> dict[str, list[str]]:
    """Passages of each query by rank: 'query Q0 passage rank score tag' or 'query passage rank'."""
    ranked: dict[str, dict[str, int]] = {}
    for number, line in _lines(path):
        fields = line.split()
        if len(fields) == 6:
            query, passage, rank = fields[0], fields[2], fields[3]
        elif len(fields) == 3:
            query, passage, rank = fields
        else:
            raise DatasetError(
                f"{path}:{number}: expected 'query Q0 passage rank score tag' or 'query passage "
                f"rank', found {line[:80]!r}"
            )
        ranked.setdefault(query, {}).setdefault(passage, _integer(rank, path, number, "rank"))
    return {query: sorted(ranks, key=ranks.__getitem__) for query, ranks in ranked.items()}


def _read_qrels(path: Path) -> Judgements:
    """Grades by query and passage: 'query 0 passage grade'."""
    judgements: Judgements = {}
    for number, line in _lines(path):
        fields = line.split()
        if len(fields) != 4:
            raise DatasetError(
                f"{path}:{number}: expected 'query 0 passage grade', found {line[:80]!r}"
            )
        query, _, passage, grade = fields
        judgements.setdefault(query, {})[passage] = _integer(grade, path, number, "grade")
    return judgements


def _integer(text: str, path: Path, number: int, what: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise DatasetError(f"{path}:{number}: the {what} {text!r} is not an integer") from None
