"""PURE. What goes into a prompt, in which order, within how many tokens."""
