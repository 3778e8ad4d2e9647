"""PURE. npc.v1: commands, events, errors and limits, as typed data."""

SUBPROTOCOL = "npc.v1"
VERSION = 1
