from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Pair(_message.Message):
    __slots__ = ("query", "passage")
    QUERY_FIELD_NUMBER: _ClassVar[int]
    PASSAGE_FIELD_NUMBER: _ClassVar[int]
    query: str
    passage: str
    def __init__(self, query: _Optional[str] = ..., passage: _Optional[str] = ...) -> None: ...

class ScoreRequest(_message.Message):
    __slots__ = ("query", "passages", "model")
    QUERY_FIELD_NUMBER: _ClassVar[int]
    PASSAGES_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    query: str
    passages: _containers.RepeatedScalarFieldContainer[str]
    model: str
    def __init__(self, query: _Optional[str] = ..., passages: _Optional[_Iterable[str]] = ..., model: _Optional[str] = ...) -> None: ...

class ScorePairsRequest(_message.Message):
    __slots__ = ("pairs", "model")
    PAIRS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    pairs: _containers.RepeatedCompositeFieldContainer[Pair]
    model: str
    def __init__(self, pairs: _Optional[_Iterable[_Union[Pair, _Mapping]]] = ..., model: _Optional[str] = ...) -> None: ...

class StageTimings(_message.Message):
    __slots__ = ("tokenize_ms", "queue_ms", "infer_ms")
    TOKENIZE_MS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_MS_FIELD_NUMBER: _ClassVar[int]
    INFER_MS_FIELD_NUMBER: _ClassVar[int]
    tokenize_ms: float
    queue_ms: float
    infer_ms: float
    def __init__(self, tokenize_ms: _Optional[float] = ..., queue_ms: _Optional[float] = ..., infer_ms: _Optional[float] = ...) -> None: ...

class ScoreResponse(_message.Message):
    __slots__ = ("scores", "timings", "tokens", "truncated")
    SCORES_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    scores: _containers.RepeatedScalarFieldContainer[float]
    timings: StageTimings
    tokens: int
    truncated: int
    def __init__(self, scores: _Optional[_Iterable[float]] = ..., timings: _Optional[_Union[StageTimings, _Mapping]] = ..., tokens: _Optional[int] = ..., truncated: _Optional[int] = ...) -> None: ...

class EmbedRequest(_message.Message):
    __slots__ = ("texts", "model")
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    texts: _containers.RepeatedScalarFieldContainer[str]
    model: str
    def __init__(self, texts: _Optional[_Iterable[str]] = ..., model: _Optional[str] = ...) -> None: ...

class EmbedResponse(_message.Message):
    __slots__ = ("values", "dim", "timings", "tokens", "truncated")
    VALUES_FIELD_NUMBER: _ClassVar[int]
    DIM_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[float]
    dim: int
    timings: StageTimings
    tokens: int
    truncated: int
    def __init__(self, values: _Optional[_Iterable[float]] = ..., dim: _Optional[int] = ..., timings: _Optional[_Union[StageTimings, _Mapping]] = ..., tokens: _Optional[int] = ..., truncated: _Optional[int] = ...) -> None: ...

class GetInfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ServerInfo(_message.Message):
    __slots__ = ("models", "scheduler", "workers", "threads", "max_pairs", "max_queue_pairs", "max_request_bytes", "version", "startup", "max_text_bytes", "max_queue_ms")
    MODELS_FIELD_NUMBER: _ClassVar[int]
    SCHEDULER_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    THREADS_FIELD_NUMBER: _ClassVar[int]
    MAX_PAIRS_FIELD_NUMBER: _ClassVar[int]
    MAX_QUEUE_PAIRS_FIELD_NUMBER: _ClassVar[int]
    MAX_REQUEST_BYTES_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STARTUP_FIELD_NUMBER: _ClassVar[int]
    MAX_TEXT_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_QUEUE_MS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[ModelInfo]
    scheduler: str
    workers: int
    threads: int
    max_pairs: int
    max_queue_pairs: int
    max_request_bytes: int
    version: str
    startup: Startup
    max_text_bytes: int
    max_queue_ms: float
    def __init__(self, models: _Optional[_Iterable[_Union[ModelInfo, _Mapping]]] = ..., scheduler: _Optional[str] = ..., workers: _Optional[int] = ..., threads: _Optional[int] = ..., max_pairs: _Optional[int] = ..., max_queue_pairs: _Optional[int] = ..., max_request_bytes: _Optional[int] = ..., version: _Optional[str] = ..., startup: _Optional[_Union[Startup, _Mapping]] = ..., max_text_bytes: _Optional[int] = ..., max_queue_ms: _Optional[float] = ...) -> None: ...

class Startup(_message.Message):
    __slots__ = ("load_s", "compile_s", "rss_before_load_mb", "rss_after_load_mb", "rss_load_peak_mb")
    LOAD_S_FIELD_NUMBER: _ClassVar[int]
    COMPILE_S_FIELD_NUMBER: _ClassVar[int]
    RSS_BEFORE_LOAD_MB_FIELD_NUMBER: _ClassVar[int]
    RSS_AFTER_LOAD_MB_FIELD_NUMBER: _ClassVar[int]
    RSS_LOAD_PEAK_MB_FIELD_NUMBER: _ClassVar[int]
    load_s: float
    compile_s: float
    rss_before_load_mb: float
    rss_after_load_mb: float
    rss_load_peak_mb: float
    def __init__(self, load_s: _Optional[float] = ..., compile_s: _Optional[float] = ..., rss_before_load_mb: _Optional[float] = ..., rss_after_load_mb: _Optional[float] = ..., rss_load_peak_mb: _Optional[float] = ...) -> None: ...

class ModelInfo(_message.Message):
    __slots__ = ("name", "backend", "quant", "device", "architecture", "max_length", "digest", "caveat", "model_mb", "encoder", "embedding_dim", "computes_scores", "is_reference")
    NAME_FIELD_NUMBER: _ClassVar[int]
    BACKEND_FIELD_NUMBER: _ClassVar[int]
    QUANT_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    ARCHITECTURE_FIELD_NUMBER: _ClassVar[int]
    MAX_LENGTH_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    CAVEAT_FIELD_NUMBER: _ClassVar[int]
    MODEL_MB_FIELD_NUMBER: _ClassVar[int]
    ENCODER_FIELD_NUMBER: _ClassVar[int]
    EMBEDDING_DIM_FIELD_NUMBER: _ClassVar[int]
    COMPUTES_SCORES_FIELD_NUMBER: _ClassVar[int]
    IS_REFERENCE_FIELD_NUMBER: _ClassVar[int]
    name: str
    backend: str
    quant: str
    device: str
    architecture: str
    max_length: int
    digest: str
    caveat: str
    model_mb: float
    encoder: str
    embedding_dim: int
    computes_scores: bool
    is_reference: bool
    def __init__(self, name: _Optional[str] = ..., backend: _Optional[str] = ..., quant: _Optional[str] = ..., device: _Optional[str] = ..., architecture: _Optional[str] = ..., max_length: _Optional[int] = ..., digest: _Optional[str] = ..., caveat: _Optional[str] = ..., model_mb: _Optional[float] = ..., encoder: _Optional[str] = ..., embedding_dim: _Optional[int] = ..., computes_scores: _Optional[bool] = ..., is_reference: _Optional[bool] = ...) -> None: ...

class GetMetricsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class WatchMetricsRequest(_message.Message):
    __slots__ = ("interval_s",)
    INTERVAL_S_FIELD_NUMBER: _ClassVar[int]
    interval_s: float
    def __init__(self, interval_s: _Optional[float] = ...) -> None: ...

class ResetMetricsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ResetMetricsResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Distribution(_message.Message):
    __slots__ = ("count", "mean", "p50", "p95", "p99")
    COUNT_FIELD_NUMBER: _ClassVar[int]
    MEAN_FIELD_NUMBER: _ClassVar[int]
    P50_FIELD_NUMBER: _ClassVar[int]
    P95_FIELD_NUMBER: _ClassVar[int]
    P99_FIELD_NUMBER: _ClassVar[int]
    count: int
    mean: float
    p50: float
    p95: float
    p99: float
    def __init__(self, count: _Optional[int] = ..., mean: _Optional[float] = ..., p50: _Optional[float] = ..., p95: _Optional[float] = ..., p99: _Optional[float] = ...) -> None: ...

class Metrics(_message.Message):
    __slots__ = ("uptime_s", "since_reset_s", "requests_ok", "requests_failed", "pairs", "tokens", "truncated_pairs", "batches", "batch_pairs", "batch_tokens", "tokens_computed", "queue_pairs", "requests_in_flight", "pairs_per_s", "latency_ms", "tokenize_ms", "queue_ms", "infer_ms", "rss_mb", "cpu_cores", "device_memory_mb", "device_memory_peak_mb", "cpu_s", "rss_peak_mb", "latency_sum_ms", "tokenize_sum_ms", "queue_sum_ms", "infer_sum_ms", "wasted_pairs", "replicas", "replicas_missing")
    class RequestsFailedEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    UPTIME_S_FIELD_NUMBER: _ClassVar[int]
    SINCE_RESET_S_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_OK_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_FAILED_FIELD_NUMBER: _ClassVar[int]
    PAIRS_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_PAIRS_FIELD_NUMBER: _ClassVar[int]
    BATCHES_FIELD_NUMBER: _ClassVar[int]
    BATCH_PAIRS_FIELD_NUMBER: _ClassVar[int]
    BATCH_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TOKENS_COMPUTED_FIELD_NUMBER: _ClassVar[int]
    QUEUE_PAIRS_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    PAIRS_PER_S_FIELD_NUMBER: _ClassVar[int]
    LATENCY_MS_FIELD_NUMBER: _ClassVar[int]
    TOKENIZE_MS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_MS_FIELD_NUMBER: _ClassVar[int]
    INFER_MS_FIELD_NUMBER: _ClassVar[int]
    RSS_MB_FIELD_NUMBER: _ClassVar[int]
    CPU_CORES_FIELD_NUMBER: _ClassVar[int]
    DEVICE_MEMORY_MB_FIELD_NUMBER: _ClassVar[int]
    DEVICE_MEMORY_PEAK_MB_FIELD_NUMBER: _ClassVar[int]
    CPU_S_FIELD_NUMBER: _ClassVar[int]
    RSS_PEAK_MB_FIELD_NUMBER: _ClassVar[int]
    LATENCY_SUM_MS_FIELD_NUMBER: _ClassVar[int]
    TOKENIZE_SUM_MS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_SUM_MS_FIELD_NUMBER: _ClassVar[int]
    INFER_SUM_MS_FIELD_NUMBER: _ClassVar[int]
    WASTED_PAIRS_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_MISSING_FIELD_NUMBER: _ClassVar[int]
    uptime_s: float
    since_reset_s: float
    requests_ok: int
    requests_failed: _containers.ScalarMap[str, int]
    pairs: int
    tokens: int
    truncated_pairs: int
    batches: int
    batch_pairs: int
    batch_tokens: int
    tokens_computed: int
    queue_pairs: int
    requests_in_flight: int
    pairs_per_s: float
    latency_ms: Distribution
    tokenize_ms: Distribution
    queue_ms: Distribution
    infer_ms: Distribution
    rss_mb: float
    cpu_cores: float
    device_memory_mb: float
    device_memory_peak_mb: float
    cpu_s: float
    rss_peak_mb: float
    latency_sum_ms: float
    tokenize_sum_ms: float
    queue_sum_ms: float
    infer_sum_ms: float
    wasted_pairs: int
    replicas: int
    replicas_missing: int
    def __init__(self, uptime_s: _Optional[float] = ..., since_reset_s: _Optional[float] = ..., requests_ok: _Optional[int] = ..., requests_failed: _Optional[_Mapping[str, int]] = ..., pairs: _Optional[int] = ..., tokens: _Optional[int] = ..., truncated_pairs: _Optional[int] = ..., batches: _Optional[int] = ..., batch_pairs: _Optional[int] = ..., batch_tokens: _Optional[int] = ..., tokens_computed: _Optional[int] = ..., queue_pairs: _Optional[int] = ..., requests_in_flight: _Optional[int] = ..., pairs_per_s: _Optional[float] = ..., latency_ms: _Optional[_Union[Distribution, _Mapping]] = ..., tokenize_ms: _Optional[_Union[Distribution, _Mapping]] = ..., queue_ms: _Optional[_Union[Distribution, _Mapping]] = ..., infer_ms: _Optional[_Union[Distribution, _Mapping]] = ..., rss_mb: _Optional[float] = ..., cpu_cores: _Optional[float] = ..., device_memory_mb: _Optional[float] = ..., device_memory_peak_mb: _Optional[float] = ..., cpu_s: _Optional[float] = ..., rss_peak_mb: _Optional[float] = ..., latency_sum_ms: _Optional[float] = ..., tokenize_sum_ms: _Optional[float] = ..., queue_sum_ms: _Optional[float] = ..., infer_sum_ms: _Optional[float] = ..., wasted_pairs: _Optional[int] = ..., replicas: _Optional[int] = ..., replicas_missing: _Optional[int] = ...) -> None: ...
