"""The words that devices tag with. What each means, and from which figure on, stands in edge/TAGS.md.

The hub refuses a rule over a word that nobody gives, so both sides read the words here.
"""

from typing import Final

DEVICE_TAGS: Final = (
    "tiny",
    "small",
    "medium",
    "big",
    "dark",
    "bright",
    "flat",
    "noisy",
    "grayscale",
    "defocus",
    "motion_blur",
    "motion_horizontal",
    "motion_vertical",
    "motion_diagonal",
    "crowded",
    "occluded",
    "border",
    "wide",
    "tall",
    "left",
    "middle",
    "right",
    "top",
    "centre",
    "bottom",
    "ghost",
    "duplicate",
    "still",
    "class_flip",
)
