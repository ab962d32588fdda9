"""What a server says of a model that it serves."""

from __future__ import annotations

from crossbench.serving import inference_pb2 as pb
from crossbench.serving.service import ModelService
from crossbench.types import Pipeline, Quant

PIPELINE_CAVEATS = {
    Pipeline.FULL: "",
    Pipeline.TOKENIZE: "pipeline=tokenize: no model ran, every score is 0, and the numbers are of "
    "tokenisation alone.",
    Pipeline.INFER: "pipeline=infer: the token ids of each pair were computed once before, and the "
    "numbers leave tokenisation out.",
}
NOTHING_COMPUTED = "no model ran, the scores mean nothing, and the numbers are the harness's own."


def model_info(service: ModelService, pipeline: Pipeline) -> pb.ModelInfo:
    """Its identity, how it is computed and what a reader of its numbers must know."""
    model, replica = service.model, service.replicas[0]
    devices = dict.fromkeys(replica.engine.device for replica in service.replicas)
    backend, quant = replica.backend, replica.backend.deployment.quant
    device = ", ".join(devices) if service.runs_model else "none"
    is_reference = backend.traits.is_reference and quant is Quant.FP32 and device == "cpu"
    caveats = [PIPELINE_CAVEATS[pipeline]]
    if service.runs_model:  # else nobody's weights matter
        nothing = f"backend={backend.name}: {NOTHING_COMPUTED}"
        caveats.insert(0, model.caveat or "" if backend.traits.computes_scores else nothing)
    return pb.ModelInfo(
        name=model.name,
        backend=backend.name,
        quant=quant.value,
        device=device,
        architecture=model.architecture,
        max_length=model.max_length,
        digest=model.digest,
        encoder=backend.encoder if service.runs_model else "none",
        embedding_dim=model.embedding_dim,
        caveat=" ".join(filter(None, caveats)),
        computes_scores=service.runs_model and backend.traits.computes_scores,
        is_reference=is_reference,
        model_mb=replica.memory().model_mb if service.runs_model else None,
    )


def computes_scores(served: pb.ModelInfo) -> bool:
    """Whether a model computes what the server answers; a server from before it was said shows it
    by its device."""
    if served.HasField("computes_scores"):
        return served.computes_scores
    return served.device != "none"
