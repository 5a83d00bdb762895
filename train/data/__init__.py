"""Captioned clips: where they come from, which can be trained on, and in what sizes."""

if not __name__.startswith("modelgrow."):
    raise ImportError("import this as 'modelgrow.train.data'; run 'pip install -e .' in the clone first")

from .buckets import Bucket, Buckets, choose_buckets
from .clip import Clip, ClipSource, Refused
from .open import open_clips
from .report import DataReport, contact_sheet, report

__all__ = [
    "Bucket",
    "Buckets",
    "Clip",
    "ClipSource",
    "DataReport",
    "Refused",
    "choose_buckets",
    "contact_sheet",
    "open_clips",
    "report",
]
