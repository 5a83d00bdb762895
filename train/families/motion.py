"""How much moves in a clip, as SVD is told: the motion bucket, 0 to 127.

What the buckets meant when SVD was trained is not published. These thresholds are ExVideo's (its training script,
`MotionBucketManager`): 128 even shares of its own clips, by how much a pixel's value varies over time.
"""

from __future__ import annotations

import torch

# fmt: off
THRESHOLDS = (
    0.0, 0.012205946, 0.015117834, 0.018080613, 0.020614484, 0.021959992, 0.024088068, 0.026323952, 0.028277775,
    0.029968588, 0.031836554, 0.033596724, 0.03512153, 0.037200287, 0.038914755, 0.040696491, 0.042368013,
    0.044265781, 0.046311017, 0.048243891, 0.050294187, 0.0521424, 0.05363423, 0.055612389, 0.057594258,
    0.059410289, 0.061283995, 0.063603796, 0.065192916, 0.06714686, 0.069066539, 0.070390493, 0.072588451,
    0.073959745, 0.075889029, 0.077695683, 0.079783581, 0.08216273, 0.084092639, 0.085958421, 0.087700523,
    0.089684933, 0.091688842, 0.093335517, 0.094987206, 0.096664011, 0.09831471, 0.100262381, 0.101984538,
    0.103404313, 0.10528034, 0.106974818, 0.109028399, 0.111164779, 0.113065213, 0.114362158, 0.116407216,
    0.118063427, 0.119524263, 0.12183582, 0.124242283, 0.126202747, 0.128989249, 0.131672353, 0.133417681,
    0.135567948, 0.137313649, 0.139189199, 0.140912935, 0.143525436, 0.145718485, 0.148315132, 0.151039496,
    0.15321894, 0.155252382, 0.157651082, 0.159966752, 0.162195817, 0.164811596, 0.167341709, 0.170251891,
    0.172651157, 0.175550997, 0.178372145, 0.181039348, 0.1835659, 0.186599866, 0.190071866, 0.192574754,
    0.195026234, 0.198099136, 0.200210452, 0.202522039, 0.205410406, 0.208610669, 0.211623028, 0.21472311,
    0.218520239, 0.222194016, 0.22536315, 0.229384825, 0.233422622, 0.23701261, 0.240735114, 0.243622541,
    0.247465774, 0.252190471, 0.257356376, 0.261856794, 0.266556412, 0.271076709, 0.277361482, 0.281250387,
    0.28658244, 0.291158527, 0.296712339, 0.303008437, 0.311793238, 0.318485111, 0.326999635, 0.33213824,
    0.341770738, 0.35418883, 0.365194678, 0.379234344, 0.401538879, 0.416078776, 0.440871328,
)
# fmt: on
"""Of the score, from which on a clip belongs to bucket 0, 1, 2 ..."""


def motion_score(pixels: torch.Tensor) -> torch.Tensor:
    """Mean over a clip's pixels of their standard deviation over time.

    `pixels` (B, 3, T, H, W) in [-1, 1] -> (B,). Clips of one frame have none, 0.
    """
    if pixels.shape[2] < 2:
        return pixels.new_zeros(pixels.shape[0])
    return pixels.float().std(dim=2).mean(dim=(1, 2, 3))


def motion_bucket(pixels: torch.Tensor) -> torch.Tensor:
    """The last bucket whose threshold a clip's score reaches: (B, 3, T, H, W) in [-1, 1] -> (B,), int64."""
    thresholds = torch.tensor(THRESHOLDS, device=pixels.device)
    found: torch.Tensor = torch.searchsorted(thresholds, motion_score(pixels), right=True) - 1
    return found.clamp(min=0)
