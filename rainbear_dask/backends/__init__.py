"""The backends that users of rainbear know: a store that is opened once and asked many questions."""
