"""What NPCs do, as the page shows it and answers for the game."""

from __future__ import annotations

import pytest
from browser import Talk
from playwright.async_api import expect

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_an_action_is_accepted(talk: Talk) -> None:
    """A proposed action waits as a chip; accepted it is done, and the NPC speaks of it."""
    await talk.choose()
    await talk.say("Will you sell me a knife?")
    chip = talk.page.locator(".deed")
    await expect(chip).to_have_attribute("data-state", "proposed")
    await expect(chip.locator(".deed-name")).to_have_text("give_item")
    await expect(chip.locator(".deed-args")).to_have_text("count: 1, item: knife")
    await chip.get_by_role("button", name="Accept").click()
    await expect(chip).to_have_attribute("data-state", "done")
    await expect(chip.locator("form")).to_have_count(0)
    await expect(talk.replies().last.locator(".heard")).to_have_text(
        "There you are. Mind the edge."
    )
    (result,) = talk.commands("action.result")
    assert (result["call"], result["ok"]) == (talk.events("reply.action")[0]["call"], True)


async def test_a_refusal_has_its_reason(talk: Talk) -> None:
    """A reason typed into the chip reaches the NPC, stands beside it, and outlives a reload."""
    await talk.choose()
    await talk.say("Will you sell me a knife?")
    chip = talk.page.locator(".deed")
    await chip.get_by_label("Reason for refusing").fill("No room")
    await chip.get_by_role("button", name="Refuse").click()
    await expect(chip).to_have_attribute("data-state", "refused")
    await expect(chip.locator(".deed-reason")).to_have_text("No room")
    await expect(talk.replies().last.locator(".heard")).to_have_text(
        "Then make room first, and come back."
    )
    await talk.page.locator("#language").click()
    await expect(chip.locator(".deed-state")).to_have_text("거절됨")
    await talk.page.reload()
    await expect(chip).to_have_attribute("data-state", "refused")
    await expect(chip.locator(".deed-reason")).to_have_text("No room")


async def test_what_needs_no_answer_is_only_shown(talk: Talk) -> None:
    """An action that the game need not confirm is a chip without buttons."""
    await talk.choose("marta")
    await talk.answered("Is there some supper?")
    chip = talk.page.locator(".deed")
    await expect(chip).to_have_attribute("data-state", "done")
    await expect(chip.locator("button")).to_have_count(0)
