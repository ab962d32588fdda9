"""What a result says about its model, data set, machine and quality check: keys of result.json.

The texts are the descriptions in docs/result.schema.json.
"""

from __future__ import annotations

from typing import Annotated, NotRequired, TypedDict

# Percentiles by their number (`50`), and `mean`, `min`, `max`
Lengths = dict[str, float]


class ModelFacts(TypedDict):
    """The served model and its server."""

    name: Annotated[str, "Name of the model."]
    backend: Annotated[str, "Name of the backend that computed the scores."]
    computes_scores: Annotated[bool, "Whether a model computed the scores; false for noop."]
    encoder: Annotated[str, "What runs the forward: packed, transformers, or an engine's graph."]
    quant: Annotated[str, "Precision in which the model was computed."]
    device: Annotated[str, "Device of the model, such as cpu or cuda:0."]
    architecture: Annotated[str, "Architecture, as the model's config.json has it."]
    max_length: Annotated[int, "Longest input in tokens; longer pairs are truncated."]
    embedding_dim: Annotated[int | None, "Dimension of the embeddings; null if it scores pairs."]
    digest: Annotated[str, "Hash of the model's files."]
    caveat: Annotated[str | None, "What limits what the scores say, such as seeded weights."]
    also_served: NotRequired[Annotated[list[str], "Names of the server's other models."]]
    workers: Annotated[int, "Workers that computed micro-batches."]
    threads: Annotated[int, "Threads of each worker."]


class DatasetFacts(TypedDict):
    """The data set of a cell; lengths in tokens of the served model, without special tokens."""

    name: Annotated[str, "Name of the data set."]
    source: Annotated[str, "Where it comes from: a folder, a hub's data set, or a generator."]
    files: NotRequired[Annotated[str, "Its files, joined by commas."]]
    digest: Annotated[str, "Hash of its texts."]
    lists: Annotated[int, "Queries with their passages."]
    pairs: Annotated[int, "Pairs of a query and a passage."]
    query_tokens: Annotated[Lengths, "Lengths of the queries in tokens: percentiles, mean, ends."]
    passage_tokens: Annotated[Lengths, "Lengths of the passages in tokens, likewise."]


class EnvironmentFacts(TypedDict):
    """The machine, its libraries, and the source code."""

    host: Annotated[str, "Name of the machine."]
    os: Annotated[str, "Operating system and its version."]
    python: Annotated[str, "Version of Python."]
    machine: Annotated[str, "Architecture of the CPU, such as x86_64."]
    cpu: Annotated[str, "Name of the CPU."]
    cpu_flags: Annotated[list[str], "Its instruction sets that affect the speed of a transformer."]
    cores_physical: Annotated[int | None, "Physical cores of the machine; null if unknown."]
    cores_logical: Annotated[int | None, "Logical cores of the machine; null if unknown."]
    cores_usable: Annotated[int, "Cores that crossbench could use."]
    memory_total_mb: Annotated[int, "Memory that crossbench could use, in MB (10^6 bytes)."]
    gpus: Annotated[list[str], "Names of the GPUs."]
    versions: Annotated[dict[str, str], "Versions of the libraries by distribution."]
    git_commit: Annotated[str | None, "Commit of crossbench; null outside a checkout."]
    git_dirty: Annotated[bool | None, "Whether crossbench had uncommitted changes, null likewise."]
    cores_client: NotRequired[Annotated[str, "CPUs that were reserved for the client, as 0-3,8."]]
    cores_server: NotRequired[Annotated[str, "CPUs that were reserved for the server, likewise."]]


class QualityFacts(TypedDict):
    """The quality check: what the backend and the precision did to the ranking."""

    check: Annotated[str, "Choice of conf/quality."]
    verdict: Annotated[str, "What was found, see docs/reading-results.md."]
    reason: Annotated[str, "Why, as a sentence."]
    checked_in: NotRequired[Annotated[str, "Folder of the repeat that was checked instead."]]
    left_out: NotRequired[Annotated[str, "What could not be checked; empty if nothing."]]
    same_scores: NotRequired[Annotated[bool, "Whether scores differ only by rounding."]]
    queries_chosen: NotRequired[Annotated[int, "Queries in the sample."]]
    queries_scored: NotRequired[Annotated[int, "Queries that the cell scored."]]
    queries_compared: NotRequired[Annotated[int, "Queries that the reference scored too."]]
    passages_a_query: NotRequired[Annotated[int, "Most passages of a query."]]
    served_s: NotRequired[Annotated[float, "Seconds that the cell's server took."]]
    reference_s: NotRequired[Annotated[float, "Seconds that the reference took."]]
