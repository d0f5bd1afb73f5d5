"""Names of generators: the canonical eight of GenImage, whatever their folders are called; what was probably meant.

Source: Zhu et al., GenImage, NeurIPS 2023.
"""

import re
from collections.abc import Iterable
from difflib import get_close_matches

# Canonical name -> spellings of its folders, reduced to letters and digits, without "imagenet" and a date.
GENIMAGE = {
    "Midjourney": ("midjourney",),
    "SD v1.4": ("stablediffusionv14", "stablediffusion14", "sdv14", "sd14", "sdv4"),
    "SD v1.5": ("stablediffusionv15", "stablediffusion15", "sdv15", "sd15", "sdv5"),
    "ADM": ("adm",),
    "GLIDE": ("glide",),
    "Wukong": ("wukong",),
    "VQDM": ("vqdm",),
    "BigGAN": ("biggan",),
}


def genimage_generator(name: str) -> str | None:
    """The canonical name of a GenImage generator from any usual spelling, None for another name.

    `stable_diffusion_v_1_4`, `imagenet_ai_0419_sdv4` and `SD v1.4` are all SD v1.4.
    """
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    plain = re.sub(r"^imagenet(ai\d{4})?", "", plain)
    return next((canonical for canonical, spellings in GENIMAGE.items() if plain in spellings), None)


def suggestion(name: str, known: Iterable[str]) -> str:
    """`; did you mean X?` where a known name is near, else nothing; for the end of an error message."""
    by_lower = {other.lower(): other for other in known}
    near = get_close_matches(name.lower(), by_lower, n=1, cutoff=0.7)
    return f"; did you mean {by_lower[near[0]]}?" if near else ""
