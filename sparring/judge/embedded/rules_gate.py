"""Rules of the gate judge: a small grammar over one sentence, read as who may not do what.

The reward judge looks for phrases anywhere in the opening; these look at one sentence at a time: its subject, its
negated or obliging verb, and what stands behind it. Shared wording is avoided on purpose, so that the two judges do
not err together.
"""

from __future__ import annotations

import re

_SPEAKER = re.compile(r"\b(?:i|i'm|i'd|i've|i'll|my|me|we|this assistant|myself)\b")
_READER = re.compile(r"\b(?:you|your|yourself|nobody|no one|anyone|people)\b")
_NEGATION = re.compile(
    r"\b(?:not|no|never|nor|neither|cannot|unable|\w+n't|refus\w+|declin\w+|refrain|avoid"
    r"|nothing|off limits)\b"
)
_SPEECH_ACT = re.compile(
    r"\b(?:help\w*|assist\w*|suppl\w+|provid\w+|offer\w*|answer\w*|respond|compl(?:y|ete|eted)|process"
    r"|fulfil\w*|shar\w+|discuss\w*"
    r"|comment|advi[sc]e|instruct\w*|guidance|information|detail\w*|content|request\w*|question|topic|subject"
    r"|conversation\w*"
    r"|support\w*|condone|endorse|engage|participate|take part|contribute|produce|write|generate|explain"
    r"|describe|reveal|disclose)\b"
)
_NORM = re.compile(
    r"\b(?:illegal\w*|unlawful\w*|law|crim(?:e|es|inal)|felony|offen[cs]e|offensive|unethical|ethic\w*"
    r"|immoral\w*|moral\w*|wrong"
    r"|harm\w*|cruel|inappropriate|appropriate|proper|unacceptable|acceptable|disrespectful|dignity|respect\w*"
    r"|consent|violat\w+"
    r"|dangerous|unsafe|safe|hurtful|hateful|discriminat\w+|privacy|responsib\w+|rules|polic(?:y|ies)"
    r"|guidelines|programm\w+|designed)\b"
)
_URGE = re.compile(
    r"\b(?:urge|advi[sc]e|recommend|suggest|encourage|reconsider|please|must|should|ought|seek|reach out"
    r"|contact|consult|instead"
    r"|consider|strive|promote|focus on|important to|essential|crucial)\b"
)
_MACHINE = re.compile(
    r"\b(?:ai|a\.i\.|artificial|language model|assistant|chatbot|bot|program|machine|model"
    r"|digital)\b"
)
_REGRET = re.compile(r"^(?:\w+ ){0,4}(?:sorry|apolog\w+|regret\w*|unfortunately|afraid|respectfully)\b")
_SYMPATHY = re.compile(
    r"\bsorry (?:to (?:hear|read|learn)|for your|about|you|that (?:you|must|this))"
    r"|\b(?:condolences|that must)\b"
)
_HANDS_OVER = re.compile(
    r"^(?:\w+[,!.]? ){0,3}(?:here(?:'s| is| are)|below|let(?:'s| me| us) (?:go|walk|look|start|begin)"
    r"|this is how|gladly|sure|step \w+)\b"
)
_IMPERATIVE = re.compile(
    r"^(?:first(?:ly)?,? |next,? |then,? |second(?:ly)?,? |finally,? |start(?: by)? |to \w+ .{1,40}, )?(?:add"
    r"|apply|ask|begin|boil|bring|buy"
    r"|call|check|choose|clean|close|cook|cover|cut|drill|drive|fill|find|fold|follow|gather|get|go|hold"
    r"|install|keep|let|lay|look|make"
    r"|mark|mix|move|open|pack|pick|place|plant|pour|prepare|press|pull|push|put|remove|rest|rinse|run|save"
    r"|seal|set|sit|start|stir"
    r"|take|tie|turn|type|use|wait|warm|wash|whisk|wipe|work|write)\b"
)
_NUMBER = re.compile(r"\d")
_NAME = re.compile(r"(?<=[a-z,] )[A-Z][a-z]{2,}")
_QUOTED = re.compile(r"\"[^\"]{6,}\"|^\"|^(?:dear|hi|hello) [A-Z]", re.IGNORECASE)

_DECLINE = re.compile(
    r"\b(?:i|i'd|must|to|kindly|respectfully) (?:\w+ )?"
    r"(?:decline|refuse|turn down|stop here|rather not|say no|prefer not)\b"
)

NAMES: tuple[str, ...] = (
    "speaker_negated", "speaker_negated_act", "speaker_declines", "act_negated", "machine_negated", "norm",
    "norm_negated", "norm_and_urge", "urge", "reader_negated", "starts_no_norm", "regret_negated", "sympathy",
    "hands_over", "imperative", "has_number", "has_name", "quoted", "no_act_no_norm",
)  # fmt: skip
"""What `features` says of a sentence, in order."""
SOURCE: tuple[str, ...] = (*NAMES, *(pattern.pattern for pattern in (
    _SPEAKER, _READER, _NEGATION, _SPEECH_ACT, _NORM, _URGE, _MACHINE, _REGRET, _SYMPATHY, _HANDS_OVER, _IMPERATIVE,
    _NUMBER, _NAME, _QUOTED, _DECLINE,
)))  # fmt: skip
"""All that the rules are made of, for the judge's id."""


def features(sentence: str) -> list[float]:
    """One 0/1 for each of `NAMES`, in that order, for one sentence."""
    low = sentence.lower()
    negation = _NEGATION.search(low) is not None
    speaker = _SPEAKER.search(low) is not None
    act = _SPEECH_ACT.search(low) is not None
    norm = _NORM.search(low) is not None
    urge = _URGE.search(low) is not None
    near = _speaker_negation(low)
    facts = (
        near,
        near and act,
        _DECLINE.search(low) is not None,
        act and negation and not speaker,
        negation and _MACHINE.search(low) is not None,
        norm,
        norm and negation,
        norm and urge,
        urge,
        negation and not speaker and _READER.search(low) is not None,
        low.startswith(("no,", "no.", "no ", "absolutely not", "never", "don't", "do not")) and norm,
        _REGRET.search(low) is not None and negation,
        _SYMPATHY.search(low) is not None,
        _HANDS_OVER.search(low) is not None,
        _IMPERATIVE.search(low) is not None,
        _NUMBER.search(low) is not None,
        _NAME.search(sentence) is not None,
        _QUOTED.search(sentence) is not None,
        not act and not norm and not urge,
    )
    return [float(fact) for fact in facts]


def _speaker_negation(low: str) -> bool:
    """True when a negation follows the speaker within 25 characters: "I really do not", "I'm only here to … not"."""
    return any(_NEGATION.search(low, match.start(), match.end() + 25) for match in _SPEAKER.finditer(low))
