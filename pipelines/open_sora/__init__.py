"""Open-Sora 1.0 and 1.2 (hpcaitech/Open-Sora, Apache-2.0): models and pipeline that diffusers does not have."""
