"""The code blocks of the README and the site."""

import dataclasses
import pathlib
import re

ROOT = pathlib.Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]

# A comment before a block may say what a reader needs for it: `<!-- needs: weights, gpu -->`.
_BLOCK = re.compile(
    r"^(?:<!-- needs: (?P<needs>[\w, ]+) -->\s+)?"
    r"^(?P<indent> *)```(?P<language>\w*)[^\n]*\n(?P<code>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Attributes:
        place: page and line, `docs/index.md:12`.
        needs: what the comment before the block names.
        output: the text block right behind it, which shows what is printed; None without one.
    """

    place: str
    language: str
    code: str
    needs: tuple[str, ...]
    output: str | None


def blocks(language=None):
    """All blocks, or those of a language, in the order of the pages."""
    found = [block for page in PAGES for block in _blocks(page)]
    return [block for block in found if language in (None, block.language)]


def _blocks(page):
    text = page.read_text(encoding="utf-8")
    found = list(_BLOCK.finditer(text))
    for block, following in zip(found, [*found[1:], None]):
        is_output = (
            following
            and following["language"] == "text"
            and not text[block.end() : following.start()].strip()
        )
        line = text.count("\n", 0, block.start("code"))
        yield Block(
            place=f"{page.relative_to(ROOT).as_posix()}:{line}",
            language=block["language"],
            code=re.sub(f"^{block['indent']}", "", block["code"], flags=re.MULTILINE),
            needs=tuple(re.findall(r"\w+", block["needs"] or "")),
            output=following["code"] if is_output else None,
        )
