"""What a file that is no safetensors file looks like, and what to do about it."""

from __future__ import annotations

CONVERT = (
    "pickled weights can run code and are never opened here. Where you trust them, load them once "
    "(torch.load with weights_only=True, or diffusers' from_pretrained) and write safetensors with save_pretrained"
)
"""What to do with weights that only a pickle has."""
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
OTHER_WEIGHTS = (*PICKLE_SUFFIXES, ".msgpack", ".h5", ".onnx", ".gguf")
"""Of files of weights that are not opened here."""

_ARCHIVE = "a compressed archive: unpack it and name what was in it"
_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself: run git lfs pull in its folder"),
    (b"PK\x03\x04", f"a zip archive, which is what torch.save writes: {CONVERT}"),
    (b"PK\x05\x06", "an empty zip archive: download it again"),
    (b"GGUF", "a GGUF file: take the model's safetensors files instead"),
    (b"\x89HDF", "an HDF5 file: take the model's safetensors files instead"),
    (b"\x1f\x8b", _ARCHIVE),
    (b"BZh", _ARCHIVE),
    (b"\xfd7zXZ", _ARCHIVE),
    (b"\x28\xb5\x2f\xfd", _ARCHIVE),
    (b"7z\xbc\xaf", _ARCHIVE),
    (b"{", "JSON text: an answer of a server, or a config or index under the wrong name. Download it again"),
    (b"[", "JSON text: an answer of a server. Download it again"),
)


def looks_like(start: bytes) -> str | None:
    """A sentence about a file that begins with `start` and turned out not to be safetensors; None for a stranger."""
    for magic, what in _MAGIC:
        if start.startswith(magic):
            return f"it is {what}"
    if start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return f"it is a pickle: {CONVERT}"
    text = start.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<body", b"<error")):
        return "it is an HTML page: the download got a web page instead of the file. Download it again, logged in"
    if start and not any(start):
        return "it begins with nothing but zeros: the download or the disk did not finish. Download it again"
    return None
