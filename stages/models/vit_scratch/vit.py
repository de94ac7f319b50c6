"""The Vision Transformer from the ground up (Dosovitskiy et al., 2021, https://arxiv.org/abs/2010.11929).

B images, T tokens (the class token and one per patch), D numbers per token, h heads of d = D / h numbers each.
Pre-norm blocks, GELU, LayerNorm with epsilon 1e-6. The head sees the class token alone (CLS); with `pool="mean"`, an
ablation, there is none and the head sees the mean of the patches. Under copied weights the logits equal those of timm's
VisionTransformer, and a test holds us to it.
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the field's name for it


class PatchEmbedding(nn.Module):
    """Cuts an image into patches and projects each one linearly. No convolution: a reshape and a matrix."""

    def __init__(self, patch_size: int, embed_dim: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.projection = nn.Linear(3 * patch_size * patch_size, embed_dim)

    def cut(self, pixels: Tensor) -> Tensor:
        b, c, height, width = pixels.shape
        p = self.patch_size
        patches = pixels.reshape(b, c, height // p, p, width // p, p)  # B, 3, rows, p, columns, p
        patches = patches.permute(0, 2, 4, 1, 3, 5)  # B, rows, columns, 3, p, p
        return patches.reshape(b, (height // p) * (width // p), c * p * p)  # B, patches, 3pp

    def forward(self, pixels: Tensor) -> Tensor:
        return self.projection(self.cut(pixels))  # B, patches, D

    @torch.no_grad()
    def whiten(self, pixels: Tensor, added: float) -> None:
        """Initial weights for images like these (one epoch of CIFAR-100: 39.9 % on validation against 36.4 %).

        Neighbouring pixels are nearly the same, and a plain projection sees little but their mean; this one sees all
        directions in which patches differ with one variance, but for the finest, which hold noise: those whose variance
        is less than what is `added` to all. Noise with more variance than that is raised as well, and harms.
        """
        patches = self.cut(pixels).flatten(0, 1).double()  # B * patches, 3pp
        variances, directions = torch.linalg.eigh(patches.T @ patches / len(patches))
        whitening = (directions / (variances + added).sqrt()) @ directions.T  # 3pp, 3pp
        self.projection.weight.copy_(self.projection.weight.double() @ whitening)


def attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """softmax(q k' / sqrt(d)) v: query and result (B, h, Q, d), key and value (B, h, T, d)."""
    if query.requires_grad and query.device.type == "cpu" and query.dtype == torch.bfloat16:
        # The way back through torch's fused attention takes a CPU four times as long as this in bfloat16.
        return (query / math.sqrt(query.shape[-1]) @ key.transpose(-2, -1)).softmax(-1) @ value
    return F.scaled_dot_product_attention(query, key, value)


class SelfAttention(nn.Module):
    """Multi-head self-attention: Q of the T tokens ask (query) all of them (key) and take what they hold (value)."""

    def __init__(self, embed_dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Linear(embed_dim, embed_dim)
        self.key = nn.Linear(embed_dim, embed_dim)
        self.value = nn.Linear(embed_dim, embed_dim)
        self.output = nn.Linear(embed_dim, embed_dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, asking: Tensor, tokens: Tensor) -> Tensor:
        def heads(x: Tensor) -> Tensor:
            return x.unflatten(2, (self.num_heads, -1)).transpose(1, 2)  # B, h, T or Q, d

        mixed = attention(heads(self.query(asking)), heads(self.key(tokens)), heads(self.value(tokens)))  # B, h, Q, d
        return self.dropout(self.output(mixed.transpose(1, 2).flatten(2)))  # B, Q, D


def sine_cosine_grid(size: int, embed_dim: int) -> Tensor:
    """Sines and cosines of rows and columns, (size * size, embed_dim) float32, as in Beyer et al. (2022,
    https://arxiv.org/abs/2205.01580): a quarter each, wavelengths from 2 pi to 20,000 pi patches.
    """
    quarter = embed_dim // 4
    angles = torch.arange(size)[:, None] / 10_000 ** (torch.arange(quarter) / quarter)  # size, D/4
    waves = torch.cat([angles.sin(), angles.cos()], dim=1)  # size, D/2
    columns, rows = waves.repeat(size, 1), waves.repeat_interleave(size, dim=0)  # patches, D/2
    return F.pad(torch.cat([columns, rows], dim=1), (0, embed_dim % 4))  # patches, D


class StochasticDepth(nn.Module):
    """In training leaves out a branch for some images of a batch and strengthens the rest (Huang et al., 2016)."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, branch: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return branch
        kept = torch.rand(len(branch), 1, 1, device=branch.device) >= self.rate  # B, 1, 1
        return branch * kept / (1 - self.rate)


class Block(nn.Module):
    """A pre-norm encoder block: attention between tokens, then an MLP on each, both added to the stream.

    num_outputs: Q, how many tokens it computes, the first ones; None: all. They attend to all tokens in any case.
    """

    num_outputs: int | None = None

    def __init__(self, embed_dim: int, num_heads: int, mlp_ratio: float, dropout: float, drop_path: float) -> None:
        super().__init__()
        hidden = int(embed_dim * mlp_ratio)
        self.norm1 = nn.LayerNorm(embed_dim, eps=1e-6)
        self.attention = SelfAttention(embed_dim, num_heads, dropout)
        self.norm2 = nn.LayerNorm(embed_dim, eps=1e-6)
        self.mlp = nn.Sequential(
            nn.Linear(embed_dim, hidden),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, embed_dim),
            nn.Dropout(dropout),
        )
        self.drop_path = StochasticDepth(drop_path)

    def forward(self, tokens: Tensor) -> Tensor:
        normed = self.norm1(tokens)  # B, T, D
        stream = tokens[:, : self.num_outputs] + self.drop_path(self.attention(normed[:, : self.num_outputs], normed))
        return stream + self.drop_path(self.mlp(self.norm2(stream)))  # B, Q, D


class VisionTransformer(nn.Module):
    """Pixels (B, 3, image_size, image_size) float in, logits (B, num_classes) out.

    patch_size must divide image_size and num_heads must divide embed_dim.
    pool: what the head sees: 'cls', the class token after the last block, or 'mean', of the patches.
    drop_path: rate of stochastic depth in the last block; it rises linearly from 0 in the first.
    """

    def __init__(
        self,
        image_size: int,
        num_classes: int,
        patch_size: int = 4,
        embed_dim: int = 192,
        depth: int = 5,
        num_heads: int = 6,
        mlp_ratio: float = 4.0,
        dropout: float = 0.0,
        drop_path: float = 0.0,
        pool: Literal["cls", "mean"] = "cls",
    ) -> None:
        super().__init__()
        self.patch_embedding = PatchEmbedding(patch_size, embed_dim)
        self.grid_size = image_size // patch_size
        self.class_token = nn.Parameter(torch.empty(1, 1, embed_dim)) if pool == "cls" else None
        num_tokens = self.grid_size**2 + (pool == "cls")
        self.position_embedding = nn.Parameter(torch.empty(1, num_tokens, embed_dim))
        self.dropout = nn.Dropout(dropout)
        rates = [drop_path * index / max(1, depth - 1) for index in range(depth)]
        blocks = [Block(embed_dim, num_heads, mlp_ratio, dropout, rate) for rate in rates]
        if pool == "cls":
            blocks[-1].num_outputs = 1  # nobody reads the patches' rows of the last block
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.LayerNorm(embed_dim, eps=1e-6)
        self.head = nn.Linear(embed_dim, num_classes)
        self.initialize()

    def initialize(self) -> None:
        """Initial weights: small ones for matrices (as in DeiT), an orthogonal one for patches, a head that starts
        undecided.

        Positions start as sines and cosines of row and column, 0.3 in root mean square, and are learned from there:
        neighbours are alike from the first step on (one epoch of CIFAR-100: 37.6 % on validation against 34.6 %).

        In the last block value and output start as the identity. With queries and keys that know nothing yet, the class
        token then starts as the mean of the tokens (one epoch of CIFAR-100: 35.0 % on validation against 34.0 %).

        Muon moves a matrix by the same amount at every step, whatever its size: the wider Xavier weights of the paper's
        code are not forgotten within a short training (one epoch of CIFAR-100: 24.7 % on validation against 27.2 %).
        """
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        projection = self.patch_embedding.projection.weight
        nn.init.orthogonal_(projection, gain=math.sqrt(max(1, projection.shape[0] / projection.shape[1])))
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.position_embedding)
        with torch.no_grad():
            patches = self.position_embedding[:, -(self.grid_size**2) :]
            patches.copy_(0.3 * math.sqrt(2) * sine_cosine_grid(self.grid_size, self.head.in_features))
        if self.class_token is not None:
            nn.init.trunc_normal_(self.class_token, std=0.02)
            last: SelfAttention = self.blocks[-1].attention  # type: ignore[assignment]
            nn.init.eye_(last.value.weight)
            nn.init.eye_(last.output.weight)

    def forward(self, pixels: Tensor) -> Tensor:
        tokens = self.patch_embedding(pixels)  # B, patches, D
        if self.class_token is not None:
            tokens = torch.cat([self.class_token.expand(tokens.shape[0], -1, -1), tokens], dim=1)  # B, T, D
        tokens = self.blocks(self.dropout(tokens + self.position_embedding))  # B, 1, D; mean pooling: B, T, D
        pooled = tokens.mean(1) if self.class_token is None else tokens[:, 0]  # B, D
        return self.head(self.norm(pooled))  # B, C
