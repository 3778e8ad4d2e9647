"""A client that follows the protocol to the letter, for tests of broken connections."""

from __future__ import annotations

from dataclasses import dataclass, field

from support import Json


@dataclass
class Story:
    """One conversation as a client knows it, of nothing but the events that came.

    A violation of the protocol fails an assertion.

    Attributes:
        last: The newest ``seq`` that arrived.
        durable: Every durable event, in the order of its arrival.
        texts: By turn, what was heard of a reply in flight: deltas, or a snapshot and deltas.
        done: By turn, how replies ended.
        resets: How often the conversation was another one.
        exact: How many replies were heard whole as they were spoken.
    """

    last: int = 0
    durable: list[Json] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)
    done: dict[str, Json] = field(default_factory=dict)
    resets: int = 0
    exact: int = 0
    _attempts: dict[str, int] = field(default_factory=dict)
    _torn: set[str] = field(default_factory=set)
    _catching_up: bool = False

    def broke(self) -> None:
        """The connection broke: of replies in flight something may be missing from now on."""
        self._torn |= self.texts.keys() - self.done.keys()
        self._catching_up = True

    def caught_up(self) -> None:
        """What was missed is told; from now on everything is heard as it happens."""
        self._catching_up = False

    def take(self, event: Json) -> None:
        """Take an event in."""
        for earlier in event.get("tail", ()) if event["type"] == "conversation.opened" else ():
            self.take(earlier)
        if "seq" in event:
            self._take_durable(event)
        turn = event.get("turn", "")
        match event["type"]:
            case "reply.started":
                self._start(turn, event["attempt"])
            case "reply.delta":
                assert turn in self.texts, f"a delta of a reply that was not announced: {event}"
                assert turn not in self.done, f"a delta of a reply that is done: {event}"
                self.texts[turn] += event["text"]
            case "reply.snapshot":
                if turn in self.texts and not event["restarted"]:
                    # Another server may know less of it by now than was heard already.
                    heard, text = self.texts[turn], event["text"]
                    assert text.startswith(heard) or heard.startswith(text), f"{heard!r}: {event}"
                self.texts[turn] = event["text"]
                self._torn.discard(turn)
            case "reply.done":
                self._end(event)

    def _take_durable(self, event: Json) -> None:
        assert event["seq"] > self.last, f"{event} came after {self.last}"
        self.last = event["seq"]
        if event["type"] == "conversation.reset":
            self.resets += 1
            self.texts.clear()
            self._torn.clear()
        self.durable.append(event)

    def _start(self, turn: str, attempt: int) -> None:
        assert attempt > self._attempts.get(turn, 0)
        self._attempts[turn] = attempt
        self.texts[turn] = ""
        self._torn.discard(turn)
        if self._catching_up:
            self._torn.add(turn)

    def _end(self, event: Json) -> None:
        turn, text = event["turn"], event["text"]
        assert turn not in self.done, f"done twice: {event}"
        self.done[turn] = event
        heard = self.texts.get(turn)
        if heard is None:
            return
        if turn in self._torn:
            assert text.startswith(heard), f"{heard!r} was sent: {event}"
        else:
            assert text == heard, f"{heard!r} was sent: {event}"
            self.exact += 1
