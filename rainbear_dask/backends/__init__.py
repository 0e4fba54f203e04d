"""The backend classes of rainbear: a store that is opened once and queried many times."""
