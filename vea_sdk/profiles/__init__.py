"""Which layers of a model ground its answers in the picture: stored profiles and how one is found."""

from vea_sdk.profiles.profile import PROFILE_FILE, Profile, builtin, find

__all__ = ["PROFILE_FILE", "Profile", "builtin", "find"]
