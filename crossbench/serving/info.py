"""The description of a served model that GetInfo returns."""

from __future__ import annotations

from crossbench.serving import inference_pb2 as pb
from crossbench.serving.service import ModelService
from crossbench.types import Pipeline, Quant

PIPELINE_CAVEATS = {
    Pipeline.FULL: "",
    Pipeline.TOKENIZE: "pipeline=tokenize: no model ran, every score is 0, and the numbers measure "
    "only tokenisation.",
    Pipeline.INFER: "pipeline=infer: the token ids of each pair were computed in advance, and the "
    "numbers exclude tokenisation.",
}
NO_MODEL_CAVEAT = (
    "no model ran, the scores are meaningless, and the numbers measure only crossbench's overhead."
)


def model_info(service: ModelService, pipeline: Pipeline) -> pb.ModelInfo:
    """Describe the model's identity, how it is computed, and caveats about its numbers."""
    model, replica = service.model, service.replicas[0]
    devices = dict.fromkeys(replica.engine.device for replica in service.replicas)
    backend, quant = replica.backend, replica.backend.deployment.quant
    device = ", ".join(devices) if service.runs_model else "none"
    is_reference = backend.traits.is_reference and quant is Quant.FP32 and device == "cpu"
    caveats = [PIPELINE_CAVEATS[pipeline]]
    if service.runs_model:  # otherwise the weights are irrelevant
        no_model = f"backend={backend.name}: {NO_MODEL_CAVEAT}"
        caveats.insert(0, model.caveat or "" if backend.traits.computes_scores else no_model)
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
    """Return whether a model computes the server's scores.

    Older servers do not report this; their device is "none" if no model runs.
    """
    if served.HasField("computes_scores"):
        return served.computes_scores
    return served.device != "none"
