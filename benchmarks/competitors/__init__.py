"""The libraries that pythpeer is compared with, each used as its documentation describes."""
