"""A hook of MkDocs: on the site, links to what is in the repository and not in docs/ become plain text."""

import re
from pathlib import Path

DOCS = Path(__file__).parent
OUT = ('records', 'tables')  # left out of the site, see mkdocs.yml


def on_page_markdown(markdown: str, page, **_) -> str:
    """Returns a page in which links out of the site are their texts."""
    folder = (DOCS / page.file.src_path).parent

    def link(match: re.Match) -> str:
        target = Path(folder, match[2]).resolve()
        inside = target.is_relative_to(DOCS) and target.relative_to(DOCS).parts[:1] not in [(name,) for name in OUT]
        return match[0] if inside else match[1]

    return re.sub(r'(?<!!)\[([^\]]*)\]\((?!https?:|#)([^)#]*)(?:#[^)]*)?\)', link, markdown)
