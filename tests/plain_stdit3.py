"""STDiT3 once more, written from its description alone, in plain torch and in the reference's order of steps.

It shares no code with modelgrow: the prompts of a batch are packed end to end and each sample attends to its own part,
given frames are computed twice and selected, softmax is written out. `benchmarks/open_sora.py` times it too.

Shape letters: B samples, T frames in patches, S patches of a frame, C width, L text tokens, D width of a head.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


def softmax_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """(N, heads, S, D) each; the softmax in float32."""
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
    weights: Tensor = scores.float().softmax(-1).to(value.dtype)
    return weights @ value


class PlainSTDiT3:
    """The reference's forward over a state dict."""

    def __init__(
        self, weights: Mapping[str, Tensor], config: Mapping[str, Any], attend: Attend = softmax_attention
    ) -> None:
        self.weights, self.config, self.attend = weights, config, attend
        self.tables: dict[tuple[int, int, float], Tensor] = {}

    def __call__(
        self,
        x: Tensor,
        timestep: Tensor,
        y: Tensor,
        mask: Tensor | None = None,
        x_mask: Tensor | None = None,
        *,
        fps: Tensor,
        height: Tensor,
        width: Tensor,
    ) -> Tensor:
        """As the reference is called: y (B, L, ...), mask (B or B / 2, L), x_mask (B, T). Returns float32."""
        size, patch, batch = x.shape[2:], self.config["patch_size"], len(x)
        times, rows, columns = (math.ceil(n / p) for n, p in zip(size, patch, strict=True))
        x = F.pad(x, (0, -size[2] % patch[2], 0, -size[1] % patch[1], 0, -size[0] % patch[0]))
        weight, bias = self.weights["x_embedder.proj.weight"], self.weights["x_embedder.proj.bias"]
        tokens = F.conv3d(x, weight, bias, stride=tuple(patch)).permute(0, 2, 3, 4, 1).flatten(2, 3)
        tokens = (tokens + self.positions(rows, columns, height, width).to(tokens)).flatten(1, 2)
        speed = self.number("fps_embedder", fps.repeat(batch // len(fps)))
        now = self.number("t_embedder", timestep) + speed
        clean = None if x_mask is None else self.number("t_embedder", torch.zeros_like(timestep)) + speed
        packed, lengths = self.text(y, mask)
        for depth in range(self.config["depth"]):
            for kind in ("spatial", "temporal"):
                name = f"{kind}_blocks.{depth}"
                tokens = self.block(name, tokens, packed, lengths, times, self.six(now), self.six(clean), x_mask)
        patches = self.last(tokens, now, clean, x_mask)
        video = patches.view(batch, times, rows, columns, *patch, -1).permute(0, 7, 1, 4, 2, 5, 3, 6)
        video = video.reshape(batch, -1, times * patch[0], rows * patch[1], columns * patch[2])
        return video[:, :, : size[0], : size[1], : size[2]].float()

    def linear(self, name: str, states: Tensor) -> Tensor:
        return F.linear(states, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def number(self, name: str, values: Tensor) -> Tensor:
        freqs = torch.exp(-math.log(10000) * torch.arange(128, device=values.device) / 128)
        angles = values.float()[:, None] * freqs
        waves = torch.cat([angles.cos(), angles.sin()], 1).to(self.weights[f"{name}.mlp.0.weight"])
        return self.linear(f"{name}.mlp.2", F.silu(self.linear(f"{name}.mlp.0", waves)))

    def six(self, embedded: Tensor | None) -> Tensor | None:
        return None if embedded is None else self.linear("t_block.1", F.silu(embedded)).view(len(embedded), 6, -1)

    def text(self, y: Tensor, mask: Tensor | None) -> tuple[Tensor, list[int]]:
        states = F.gelu(self.linear("y_embedder.y_proj.fc1", y), approximate="tanh")
        states = self.linear("y_embedder.y_proj.fc2", states)
        if mask is None:
            return states.flatten(0, 1), [states.shape[1]] * len(states)
        mask = mask.repeat(len(states) // len(mask), 1)
        return states[mask != 0], mask.sum(1).tolist()

    def positions(self, rows: int, columns: int, height: Tensor, width: Tensor) -> Tensor:
        scale = math.sqrt(height[0] * width[0]) / self.config["input_sq_size"]
        key = (rows, columns, scale)  # the reference keeps its tables too
        if key not in self.tables:
            self.tables[key] = self.table(*key).to(height.device)
        return self.tables[key]

    def table(self, rows: int, columns: int, scale: float) -> Tensor:
        channels, base = self.config["hidden_size"], round(math.sqrt(rows * columns))
        freqs = 1 / 10000 ** (torch.arange(0, channels // 2, 2) / (channels // 2))
        table = torch.empty(rows, columns, channels)
        for row in range(rows):
            for column in range(columns):
                across, down = (freqs * (at / scale * (base / n)) for at, n in ((column, columns), (row, rows)))
                table[row, column] = torch.cat([across.sin(), across.cos(), down.sin(), down.cos()])
        return table.flatten(0, 1)

    def block(
        self,
        name: str,
        x: Tensor,
        packed: Tensor,
        lengths: list[int],
        times: int,
        now: Tensor | None,
        clean: Tensor | None,
        x_mask: Tensor | None,
    ) -> Tensor:
        table = self.weights[f"{name}.scale_shift_table"]
        rows = [None if six is None else (table + six).unsqueeze(2).unbind(1) for six in (now, clean)]

        def select(change: Callable[[Any], Tensor]) -> Tensor:
            states = change(rows[0])
            if x_mask is None:
                return states
            kept = x_mask.repeat_interleave(states.shape[1] // x_mask.shape[1], 1)[..., None]
            return torch.where(kept, states, change(rows[1]))

        normed = _norm(x)
        attended = self.self_attention(name, select(lambda r: normed * (1 + r[1]) + r[0]), times)
        x = x + select(lambda r: r[2] * attended)
        x = x + self.cross_attention(f"{name}.cross_attn", x, packed, lengths)
        normed = _norm(x)
        inner = self.linear(f"{name}.mlp.fc1", select(lambda r: normed * (1 + r[4]) + r[3]))
        fed = self.linear(f"{name}.mlp.fc2", F.gelu(inner, approximate="tanh"))
        return x + select(lambda r: r[5] * fed)

    def self_attention(self, name: str, x: Tensor, times: int) -> Tensor:
        batch, is_temporal = len(x), name.startswith("temporal")
        grouped = x.unflatten(1, (times, -1))
        grouped = (grouped.transpose(1, 2) if is_temporal else grouped).flatten(0, 1)
        qkv = self.linear(f"{name}.attn.qkv", grouped).unflatten(2, (3, self.config["num_heads"], -1))
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        if self.config["qk_norm"]:
            query, key = (
                _rms(states, self.weights[f"{name}.attn.{which}_norm.weight"])
                for which, states in (("q", query), ("k", key))
            )
        if is_temporal:
            query, key = (self.rotate(states) for states in (query, key))
        joined = self.attend(query, key, value).transpose(1, 2).flatten(2)
        attended: Tensor = self.linear(f"{name}.attn.proj", joined).unflatten(0, (batch, -1))
        return (attended.transpose(1, 2) if is_temporal else attended).flatten(1, 2)

    def rotate(self, states: Tensor) -> Tensor:
        freqs = self.weights["rope.freqs"].float()
        angles = torch.outer(torch.arange(states.shape[2], device=states.device), freqs)
        turned = torch.view_as_complex(states.float().unflatten(-1, (-1, 2))) * torch.polar(
            torch.ones_like(angles), angles
        )
        return torch.view_as_real(turned).flatten(-2).to(states.dtype)

    def cross_attention(self, name: str, x: Tensor, packed: Tensor, lengths: list[int]) -> Tensor:
        heads = self.config["num_heads"]
        queries = self.linear(f"{name}.q_linear", x).unflatten(2, (heads, -1)).transpose(1, 2)
        keys, values = self.linear(f"{name}.kv_linear", packed).unflatten(1, (2, heads, -1)).permute(1, 2, 0, 3)
        parts = zip(queries, keys.split(lengths, 1), values.split(lengths, 1), strict=True)
        attended = torch.stack([self.attend(q[None], k[None], v[None])[0] for q, k, v in parts])
        return self.linear(f"{name}.proj", attended.transpose(1, 2).flatten(2))

    def last(self, x: Tensor, now: Tensor, clean: Tensor | None, x_mask: Tensor | None) -> Tensor:
        table = self.weights["final_layer.scale_shift_table"]

        def modulated(states: Tensor, embedded: Tensor) -> Tensor:
            shift, scale = (table + embedded[:, None]).unbind(1)
            return _norm(states) * (1 + scale[:, None]) + shift[:, None]

        states = modulated(x, now)
        if x_mask is not None and clean is not None:
            kept = x_mask.repeat_interleave(states.shape[1] // x_mask.shape[1], 1)[..., None]
            states = torch.where(kept, states, modulated(states, clean))
        return self.linear("final_layer.linear", states)


def _norm(states: Tensor) -> Tensor:
    return F.layer_norm(states, states.shape[-1:], eps=1e-6)


def _rms(states: Tensor, weight: Tensor) -> Tensor:
    scale = torch.rsqrt(states.float().square().mean(-1, keepdim=True) + 1e-6)
    return weight * (states.float() * scale).to(states.dtype)
