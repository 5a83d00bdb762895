"""Sizes and lengths by name, as Open-Sora 1.2 was trained on them (`opensora/datasets/aspect.py`)."""

from __future__ import annotations

from modelgrow.surgery import GenerateError

ASPECT_RATIOS = (
    *("3:8", "9:21", "12:25", "1:2", "9:17", "27:50", "9:16", "5:8", "2:3"),
    *("3:4", "1:1", "4:3", "3:2", "16:9", "17:9", "2:1", "50:27"),
)
"""Height to width: "9:16" is a landscape picture. The columns of `RESOLUTIONS`. The sizes of "50:27" are 25:12."""

RESOLUTIONS: dict[str, str] = {
    "144p": "117x312 125x291 133x277 135x270 139x262 141x260 144x256 151x241 156x234 "
    "166x221 192x192 221x165 235x156 256x144 263x139 271x135 277x132",
    "240p": "196x522 210x490 222x462 226x452 232x438 236x436 240x426 252x404 262x393 "
    "276x368 320x320 370x278 392x262 426x240 440x232 452x226 462x222",
    "360p": "294x784 314x732 332x692 340x680 350x662 352x652 360x640 380x608 392x588 "
    "416x554 480x480 554x416 588x392 640x360 660x350 678x340 692x332",
    "480p": "392x1046 420x980 444x925 452x904 466x880 470x870 480x854 506x810 522x784 "
    "554x738 640x640 740x555 784x522 854x480 880x466 906x454 924x444",
    "720p": "588x1568 628x1466 666x1388 678x1356 698x1318 706x1306 720x1280 758x1212 784x1176 "
    "832x1110 960x960 1108x832 1176x784 1280x720 1320x698 1358x680 1386x666",
    "1080p": "882x2352 942x2198 998x2080 1018x2036 1048x1980 1058x1958 1080x1920 1138x1820 1176x1764 "
    "1248x1664 1440x1440 1662x1246 1764x1176 1920x1080 1980x1048 2036x1018 2078x998",
}
"""Heights and widths in pixels; all of a row have about the same number of pixels."""

NUM_FRAMES = {"2s": 51, "4s": 102, "8s": 204, "16s": 408, "32s": 816}
"""Lengths at 24 frames per second, rounded up to the 17 frames that the VAE codes together."""
NUM_FRAMES |= {f"{number}x": 51 * number for number in (1, 2, 4, 8, 16)}

VIDEO_FPS = 24
IMAGE_FPS = 120
"""What the model is told of a clip of one frame."""


def get_image_size(resolution: str, aspect_ratio: str) -> tuple[int, int]:
    """Height and width in pixels. Raises `GenerateError` if there is no such resolution or aspect ratio."""
    if resolution not in RESOLUTIONS:
        raise GenerateError(f"resolution is {resolution!r}; choose from {', '.join(RESOLUTIONS)}, or set height, width")
    if aspect_ratio not in ASPECT_RATIOS:
        raise GenerateError(
            f"aspect_ratio is {aspect_ratio!r}; choose from {', '.join(ASPECT_RATIOS)} (height to width), "
            "or set height and width"
        )
    height, width = RESOLUTIONS[resolution].split()[ASPECT_RATIOS.index(aspect_ratio)].split("x")
    return int(height), int(width)


def get_num_frames(length: int | str) -> int:
    """A number of frames, or the name of one. Raises `GenerateError` if it is neither."""
    if isinstance(length, str) and length in NUM_FRAMES:
        return NUM_FRAMES[length]
    if isinstance(length, bool) or not str(length).isdecimal() or int(length) < 1:
        raise GenerateError(f"num_frames is {length!r}; give a whole number of at least 1, or {', '.join(NUM_FRAMES)}")
    return int(length)


def dframe_to_frame(latent_frames: int) -> int:
    """Frames in so many latent ones, which are whole chunks of 5. Raises `GenerateError` if they are not."""
    if latent_frames % 5:
        raise GenerateError(f"{latent_frames} latent frames are no whole number of the VAE's chunks of 5 (17 frames)")
    return latent_frames // 5 * 17
