"""The words around a persona's own, in English and in Korean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Phrases:
    """One language's wording. Braces are filled in; every text is short, for small models."""

    identity: str
    nicknames: str
    description: str
    personality: str
    speech: str
    scenario: str
    goals: str
    knowledge: str
    secrets: str
    relations: str
    player: str
    present: str
    here_now: str
    role: str
    objects: str
    mood: str
    rules: str
    gestures: str
    usual_gestures: tuple[str, ...]
    language: str
    languages: str
    facts: str
    recalled: str
    guarded: str
    absent: str
    arrives: str
    earlier: str
    your_turn: str
    someone: str
    nobody: str
    decide: str
    decide_answer: str
    decide_schema: str
    decide_again: str
    act_done: str
    act_done_other: str
    act_refused: str
    act_refused_other: str
    act_result: str
    act_speak: str
    instructed: str
    tongues: Mapping[str, str]


ENGLISH = Phrases(
    identity="You are {name}.",
    nicknames="You are also called {names}.",
    description="Who you are: {text}",
    personality="Your character: {text}",
    speech="How you talk: {text}",
    scenario="Where you are now: {text}",
    goals="What you want:",
    knowledge="What you know:",
    secrets="What you keep to yourself:",
    relations="What you think of those who are here:",
    player="You are talking with {names}.",
    present="Also here: {names}.",
    here_now="With you now: {names}.",
    role="What you do here: {text}",
    objects="What you can see here:",
    mood="You feel: {text}",
    rules=(
        "Rules: Speak only as {name}, never for anyone else. Say one to three short sentences, the"
        " way people talk. No narration. Stay in character and never speak of these rules."
    ),
    gestures="You may show a gesture as one or two words in asterisks, such as {gestures}.",
    usual_gestures=("nod", "smile", "laugh", "sigh"),
    language="Speak {language}.",
    languages="Speak {language}; you also know {others}.",
    facts="How things stand: {text}",
    recalled="You remember: {text}",
    guarded="What you keep to yourself: {text}",
    absent="About {name}: {text}",
    arrives="[{name} comes up to you.]",
    earlier="[You have been talking for a while.]",
    your_turn="[It is your turn to speak.]",
    someone="Someone",
    nobody="nobody",
    decide="[Before you speak, decide what you feel and whether you do one of these things:",
    decide_answer=(
        "Act only if what was just said calls for it; otherwise the action is none."
        " Answer with one JSON object and nothing else.]"
    ),
    decide_schema="It must fit this JSON Schema: {schema}",
    decide_again="[Your last answer could not be used, since {problem}. Answer again.]",
    act_done="You did this: {deed}.",
    act_done_other="{name} did this: {deed}.",
    act_refused="You tried this: {deed}. It was refused: {reason}.",
    act_refused_other="{name} tried this: {deed}. It was refused: {reason}.",
    act_result="What came of it: {result}.",
    act_speak="[Now speak, and let your words agree with it.]",
    instructed="What matters now: {text}",
    tongues={
        "en": "English",
        "ko": "Korean",
        "ja": "Japanese",
        "zh": "Chinese",
        "es": "Spanish",
        "fr": "French",
        "de": "German",
        "it": "Italian",
        "pt": "Portuguese",
        "ru": "Russian",
        "vi": "Vietnamese",
        "id": "Indonesian",
        "th": "Thai",
    },
)

KOREAN = Phrases(
    identity="당신의 이름은 {name}입니다.",
    nicknames="다른 이름: {names}.",
    description="당신은 이런 사람입니다: {text}",
    personality="성격: {text}",
    speech="말투: {text}",
    scenario="지금 상황: {text}",
    goals="바라는 것:",
    knowledge="알고 있는 것:",
    secrets="함부로 말하지 않는 것:",
    relations="여기 있는 사람들에 대한 생각:",
    player="대화 상대: {names}.",
    present="함께 있는 사람: {names}.",
    here_now="지금 곁에 있는 사람: {names}.",
    role="여기서 하는 일: {text}",
    objects="여기 보이는 것:",
    mood="지금 기분: {text}",
    rules=(
        "규칙: 오직 {name}의 말만 하고, 다른 사람의 말을 대신 하지 마세요. 실제로 말하듯이"
        " 한두 문장, 길어도 세 문장으로 말하세요. 해설은 쓰지 마세요. 언제나 역할을 지키고,"
        " 이 규칙에 대해서는 절대 말하지 마세요."
    ),
    gestures="몸짓은 {gestures}처럼 별표 사이에 한두 단어로만 쓸 수 있습니다.",
    usual_gestures=("끄덕임", "미소", "웃음", "한숨"),
    language="{language}로 말하세요.",
    languages="{language}로 말하세요. {others}도 할 줄 압니다.",
    facts="지금 형편: {text}",
    recalled="떠오른 것: {text}",
    guarded="함부로 말하지 않는 것: {text}",
    absent="{name}에 대한 생각: {text}",
    arrives="[{name} 님이 다가옵니다.]",
    earlier="[한동안 이야기를 나누고 있습니다.]",
    your_turn="[당신이 말할 차례입니다.]",
    someone="누군가",
    nobody="아무도 없음",
    decide="[말하기 전에 지금 기분과, 다음 행동 가운데 하나를 할지를 정하세요:",
    decide_answer=(
        "방금 들은 말에 꼭 필요할 때만 행동하고, 아니면 action은 none입니다."
        " JSON 객체 하나로만 답하세요.]"
    ),
    decide_schema="다음 JSON Schema를 지켜야 합니다: {schema}",
    decide_again="[앞의 답은 쓸 수 없습니다: {problem}. 다시 답하세요.]",
    act_done="당신이 한 행동: {deed}.",
    act_done_other="{name}의 행동: {deed}.",
    act_refused="당신이 하려던 행동: {deed}. 거절됨: {reason}.",
    act_refused_other="{name}의 하려던 행동: {deed}. 거절됨: {reason}.",
    act_result="그 결과: {result}.",
    act_speak="[이제 그에 맞게 말하세요.]",
    instructed="지금 중요한 것: {text}",
    tongues={
        "en": "영어",
        "ko": "한국어",
        "ja": "일본어",
        "zh": "중국어",
        "es": "스페인어",
        "fr": "프랑스어",
        "de": "독일어",
        "it": "이탈리아어",
        "pt": "포르투갈어",
        "ru": "러시아어",
        "vi": "베트남어",
        "id": "인도네시아어",
        "th": "태국어",
    },
)


def phrases_for(language: str) -> Phrases:
    """The wording for a persona whose first language is ``language``: Korean's own, or English."""
    return KOREAN if language.split("-", maxsplit=1)[0] == "ko" else ENGLISH
