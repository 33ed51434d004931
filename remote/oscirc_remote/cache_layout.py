"""What stands where in a cache directory (ADR 5)."""

STORE_DIRECTORY = "blocks"
LOCK_FILE = "flights.lock"
ACCELERATORS_DIRECTORY = "accel"
