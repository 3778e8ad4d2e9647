"""PURE. The cast, its turns, who heard what: (state, command) -> (state, events)."""
