"""Control clips: what a model reads beside the clip that it makes, by the names that data and commands give them."""

from __future__ import annotations

NAMES = ("background_video", "control_video", "face_video", "mask_video", "pose_video")
"""Sorted."""
