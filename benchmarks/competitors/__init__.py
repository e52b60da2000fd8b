"""What pythpeer is measured beside: a module for each, used as its own documentation says."""
