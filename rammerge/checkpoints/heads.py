"""Output heads of agents: copies of the embedding, and heads that training separated from it.

If an agent has separate tensors where the base ties head and embedding, the merged model has separate tensors too.
Views of the base, and of every agent that ties the two, then show the embedding also under the head's name.
"""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from rammerge.checkpoints.checkpoint import Checkpoint
from rammerge.checkpoints.compare import same_bytes
from rammerge.checkpoints.headers import TensorInfo
from rammerge.checkpoints.tying import embedding_first, text_setting, vocabulary_matrices, with_untied_head


def without_redundant_heads(base: Checkpoint, agent: Checkpoint) -> Checkpoint:
    """Return `agent` without matrices that `base` does not have and that are copies of one that it has."""
    matrices = vocabulary_matrices(agent.config, agent.tensors)
    extra = [tensor for tensor in matrices if tensor.name not in base.tensors]
    shared = [tensor for tensor in matrices if tensor.name in base.tensors]
    aliases: dict[str, str] = {}
    for tensor in extra:
        twin = next((other for other in shared if same_bytes(tensor, other)), None)
        if twin is not None:
            aliases[tensor.name] = twin.name
    kept = {name: tensor for name, tensor in agent.tensors.items() if name not in aliases}
    return replace(agent, tensors=MappingProxyType(kept), tied=MappingProxyType({**agent.tied, **aliases}))


def keep_heads_apart(
    base: Checkpoint, agents: Mapping[str, Checkpoint]
) -> tuple[Checkpoint, dict[str, Checkpoint], list[str]]:
    """Return views of `base` and `agents` with the heads that some agents keep separate, and sentences about them.

    The agents have no redundant heads. If no agent has a separate head, everything is returned unchanged.
    """
    if text_setting(base.config, "tie_word_embeddings") is False:
        return base, dict(agents), []
    embedding = min(vocabulary_matrices(base.config, base.tensors), key=embedding_first, default=None)
    if embedding is None:
        return base, dict(agents), []
    apart = {name: _own_heads(embedding, base, agent) for name, agent in agents.items()}
    heads = {head: replace(embedding, name=head) for own in apart.values() for head in own}
    if not heads:
        return base, dict(agents), []
    config = MappingProxyType(with_untied_head(base.config))
    views = {name: _with_heads(agent, heads, embedding.name) for name, agent in agents.items()}
    notes = [
        f"agent {name!r} keeps its head ({', '.join(own)}) apart from its embedding, which the base ties: the merged "
        "model stores both"
        for name, own in apart.items()
        if own
    ]
    tensors = MappingProxyType(dict(sorted({**base.tensors, **heads}.items())))
    return replace(base, tensors=tensors, config=config), views, notes


def _own_heads(embedding: TensorInfo, base: Checkpoint, agent: Checkpoint) -> list[str]:
    matrices = vocabulary_matrices(agent.config, agent.tensors)
    return [t.name for t in matrices if t.name not in base.tensors and t.shape[1:] == embedding.shape[1:]]


def _with_heads(agent: Checkpoint, heads: Mapping[str, TensorInfo], embedding: str) -> Checkpoint:
    twin = agent.tensors.get(embedding)
    if twin is None:
        return agent
    lent = {head: replace(twin, name=head) for head in heads if head not in agent.tensors}
    return replace(agent, tensors=MappingProxyType(dict(sorted({**agent.tensors, **lent}.items()))))
