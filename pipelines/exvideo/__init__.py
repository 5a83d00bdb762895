"""ExVideo (Duan et al., arXiv 2406.14130): Stable Video Diffusion for long clips, as a diffusers model and pipeline."""
