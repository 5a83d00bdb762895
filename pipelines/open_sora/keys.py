"""From the reference's names to ours, for config.json; the tensors have the reference's own names.

Keeping those is a choice: `grow` then works on published and on own folders alike, byte for byte, a grown folder still
loads in the reference's code (with its larger `depth`), and what was written about the one holds for the other.
LoRA reaches every matrix either way; `qkv` and `kv_linear` get one pair of factors for the matrices in them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from modelgrow.surgery import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

REFERENCE_ONLY = frozenset(
    {
        # How it runs or trains there: kernels, parallelism, what is frozen, dropout of whole branches (0 as published).
        *("enable_flash_attn", "enable_flashattn", "enable_layernorm_kernel", "enable_sequence_parallelism"),
        *("only_train_temporal", "freeze_y_embedder", "freeze", "drop_path", "skip_y_embedder", "dtype"),
        # Read, but without effect: the temporal table is added whatever it says.
        "no_temporal_pos_emb",
        # transformers' own.
        *("model_type", "architectures", "auto_map", "torch_dtype", "transformers_version"),
    }
)
"""Keys of a published config.json that say nothing of the function and are left out here."""


def own_config(config: Mapping[str, Any], unread: Collection[str] = ()) -> dict[str, Any]:
    """The arguments of our class in a published config.json.

    Args:
        config: All of it. What is no argument of the reference stays.
        unread: Arguments that this class does not take and the other one does.

    Raises:
        CheckpointError: It asks for what is not here.
    """
    if config.get("skip_y_embedder"):
        raise CheckpointError(
            "config.json has skip_y_embedder = true: the model would take text that is projected already. "
            "Set it to false and give the text encoder's own states"
        )
    return {name: value for name, value in config.items() if name not in REFERENCE_ONLY and name not in unread}
