"""Hooks of MkDocs: links out of the site become plain text, and short code within a sentence is marked for site.css."""

import re
from pathlib import Path

DOCS = Path(__file__).parent
OUT = ('records', 'tables')  # left out of the site, see mkdocs.yml
SHORT = 36  # characters, which a phone has room for


def on_page_markdown(markdown: str, page, **_) -> str:
    """Returns a page in which links out of the site are their texts."""
    folder = (DOCS / page.file.src_path).parent

    def link(match: re.Match) -> str:
        target = Path(folder, match[2]).resolve()
        inside = target.is_relative_to(DOCS) and target.relative_to(DOCS).parts[:1] not in [(name,) for name in OUT]
        return match[0] if inside else match[1]

    return re.sub(r'(?<!!)\[([^\]]*)\]\((?!https?:|#)([^)#]*)(?:#[^)]*)?\)', link, markdown)


def on_page_content(html: str, **_) -> str:
    """Returns a page's HTML in which short code, of one line and without attributes, has the class `short`."""
    return re.sub(rf'<code>([^<\n]{{1,{SHORT}}})</code>', r'<code class="short">\1</code>', html)
