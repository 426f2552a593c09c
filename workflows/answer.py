"""When two answers are the same; apart, because workflows vote with it and tasks score with it."""

import re
import string

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def vote(answer: str) -> str:
    """What two answers have in common that vote for the same: normalised words, or numbers and formulas with their signs."""
    if any(character.isdigit() for character in answer):
        return "".join(answer.casefold().split()).rstrip(".")
    return normalise(answer)


def normalise(answer: str) -> str:
    """The answer in lower case without punctuation, articles and extra white space.

    The normalisation of SQuAD and HotpotQA's exact match (Rajpurkar et al., arXiv 1606.05250).
    """
    return " ".join(_ARTICLES.sub(" ", answer.lower().translate(_PUNCTUATION)).split())
