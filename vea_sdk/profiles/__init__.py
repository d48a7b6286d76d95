"""Which layers of a model ground its answers in the picture: stored profiles and how one is found."""

from vea_sdk.profiles.finding import belongs, builtin, file_stem, find, install, is_folder, model_name, user_folder
from vea_sdk.profiles.profile import PROFILE_FILE, Profile

__all__ = [
    "PROFILE_FILE",
    "Profile",
    "belongs",
    "builtin",
    "file_stem",
    "find",
    "install",
    "is_folder",
    "model_name",
    "user_folder",
]
